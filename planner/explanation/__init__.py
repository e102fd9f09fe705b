"""Why a plan is what it is: time by operator, memory, and which SLO binds."""
