"""The one place that names a solver: PuLP hands a problem to HiGHS, one thread, deterministic."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import pulp


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a solve ended.

    Attributes
    ----------
    termination
        ``optimal``; ``feasible`` (stopped at the time limit with a solution); ``stopped`` (without
        one); ``infeasible`` (proved).
    objective, bound
        Value found and proved bound, in the objective's unit; infinite without a solution.
    """

    termination: Literal["optimal", "feasible", "stopped", "infeasible"]
    objective: float
    bound: float


def run(
    problem: pulp.LpProblem, time_limit_s: float, feasibility: float = 1e-6, gap: float = 1e-9
) -> Outcome:
    """Solve a problem to a relative gap; its variables then hold the solution.

    Parameters
    ----------
    problem
        The problem; its variables are written to.
    time_limit_s
        Wall time after which the best solution so far counts [s].
    feasibility
        How far a row may be missed, in the row's unit (HiGHS's own default is 1e-6).
    gap
        Relative difference of value and bound at which the value counts as optimal.
    """
    # PuLP swallows whatever stops its own import of the solver, Ctrl-C too: import it first
    import highspy  # noqa: F401
    import pulp

    solver = pulp.HiGHS(
        msg=False,
        gapRel=gap,
        timeLimit=time_limit_s,
        threads=1,
        mip_feasibility_tolerance=feasibility,
        primal_feasibility_tolerance=feasibility / 10,
    )
    problem.solve(solver)
    # sol_status, never status: the latter says optimal at a time limit (coin-or/pulp #649)
    if problem.sol_status not in (pulp.LpSolutionOptimal, pulp.LpSolutionIntegerFeasible):
        proved = problem.sol_status == pulp.LpSolutionInfeasible
        return Outcome("infeasible" if proved else "stopped", math.inf, math.inf)
    constant = float(problem.objective.constant)  # which PuLP keeps from the solver
    return Outcome(
        "optimal" if problem.sol_status == pulp.LpSolutionOptimal else "feasible",
        float(pulp.value(problem.objective)),
        float(problem.solverModel.getInfo().mip_dual_bound) + constant,
    )
