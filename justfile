# Convenience around run.py, which needs no just: `python3 run.py --help`.

# A server for test-integration; what `just services-start` starts listens there.
export SURREALDB_TEST_URL := env("SURREALDB_TEST_URL", "")

# List the recipes
default:
    @just --list --unsorted

# A real worker on a real engine, start to end: just demo --broker redis://localhost
demo *arguments:
    python3 run.py demo {{ arguments }}

# Every test, on both lines of SurrealDB's SDK; arguments go to pytest
test *arguments:
    python3 run.py test {{ arguments }}

# The tests that need no server
test-unit *arguments:
    python3 run.py test --no-coverage tests/unit {{ arguments }}

# The tests against a running server: SURREALDB_TEST_URL, or what services-start started
test-integration *arguments:
    SURREALDB_TEST_URL="${SURREALDB_TEST_URL:-ws://127.0.0.1:8000/rpc}" python3 run.py test --no-coverage tests/integration {{ arguments }}

# The same against engines that the tests start and stop themselves; all of it, or the files among the arguments
test-integration-auto *arguments:
    SURREALDB_TEST_URL= python3 run.py test --no-coverage {{ if arguments =~ "tests/" { "" } else { "tests/integration" } }} {{ arguments }}

# Start SurrealDB and Redis in Docker
services-start:
    docker compose -f docker-compose.tests.yml up --detach --wait

# Stop them; their data is gone
services-stop:
    docker compose -f docker-compose.tests.yml down --volumes

# Ruff: rules and format
lint *arguments:
    python3 run.py lint {{ arguments }}

# mypy, strict, against the types of both SDKs
types *arguments:
    python3 run.py types {{ arguments }}

# All that looks at the code without running it
check:
    python3 run.py check

# Source archive and wheel into dist/
build *arguments:
    python3 run.py build {{ arguments }}

# The benchmarks, side by side with Celery's other backends
bench *arguments:
    python3 run.py python -m benchmarks {{ arguments }}

# All that CI runs
ci:
    bash .ci/run
