"""A pool of twenty engines, and five more while all are busy; failures cost their own request only.

MLLD_ENGINE=embedded python examples/pool.py
"""

from pathlib import Path

from mlld_sdk import Pool, Runtime, child, one_for_one

FLOWS = Path(__file__).with_name("flows")


def main() -> None:
    """Run a script once for each payload, as many at a time as there are engines, and take the results in order."""
    tree = one_for_one(child(Pool, name="workers", size=20, overflow=5, working_dir=str(FLOWS)))
    with Runtime(tree) as runtime:
        workers = runtime.pool("workers")
        done = failed = 0
        for result in workers.map("step.mld", ({"n": n} for n in range(100)), concurrency=25):
            if isinstance(result, Exception):
                failed += 1
            else:
                done += 1
        print(f"{done} done, {failed} failed, {workers.status().engines.started} engines started")
        with workers.checkout() as engine:  # one engine for several requests in a row
            print(engine.process('show "first"').strip(), engine.process('show "second"').strip())


if __name__ == "__main__":
    main()
