"""Demonstrations: each breaks something for real, shows it heal, and proves what it shows or fails.

They are programs like those of users: they import what users import, and only the command line imports them.
"""

DEMOS = {
    "recovery": "kill the engine, the agent and the whole service; no finished step is repeated",
    "breaker": "a flapping engine: backoff, and a circuit breaker that opens, tries and closes",
    "ladder": "a wedged agent is killed and climbs from a small model to a stronger one",
    "fork": "collect once, then three analyses that pay for nothing twice",
    "pool": "twenty engines and five more under load, while engines are killed",
    "many": "ten thousand declared agents, four live engines",
    "asyncio": "a supervised agent inside an asyncio service, whose loop never waits",
}
"""What `mlld-otp demo NAME` plays, by name."""
