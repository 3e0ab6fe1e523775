"""Tests run with jaxtyping's shapes checked by beartype, on the CPU, in a cache of their own."""

import gc
import os
from pathlib import Path

import hypothesis
import pytest

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# What a test computes takes less time than to optimise its program, or to emit it by way of MLIR.
QUICK_TO_COMPILE = {
    "xla_backend_optimization_level": 0,
    "xla_cpu_use_fusion_emitters": "false",
    "xla_cpu_parallel_codegen_split_count": 1,
}
given = os.environ.get("XLA_FLAGS", "")
more = [f"--{name}={value}" for name, value in QUICK_TO_COMPILE.items() if name not in given]
os.environ["XLA_FLAGS"] = " ".join([given, *more]).strip()
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # the tests themselves share out the cores

gc.set_threshold(50_000, 20, 50)  # tracing allocates much and leaves few cycles

from jaxtyping import install_import_hook

# The first example compiles, so none has a deadline. The same examples are drawn each time; `make fuzz`
# looks for others.
hypothesis.settings.register_profile("tests", deadline=None, derandomize=True)
hypothesis.settings.register_profile("fuzz", deadline=None, max_examples=1000)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "tests"))
install_import_hook(
    [
        "latebloom.nn",
        "latebloom.losses",
        "latebloom.optim",
        "latebloom.methods.bandits.exploration",
        "latebloom.methods.continuous",
        "latebloom.core.odes",
        "latebloom.core.sdes",
    ],
    "beartype.beartype",
)


def pytest_collection_finish(session):
    """What was imported stays: the collector need not look through it again and again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def compiled_programs_are_kept():
    """Share compiled programs among the tests of a session, and with sessions to come."""
    import jax

    folder = Path(__file__).parent.parent / ".cache" / "compiled"
    folder = Path(os.environ.get("LATEBLOOM_TEST_CACHE", folder))
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)


@pytest.fixture(scope="module", autouse=True)
def few_programs_are_loaded():
    """Forget programs long before a process has as many memory maps as Linux allows (65,530)."""
    yield
    import jax

    from latebloom.core.runs import program as programs

    maps = Path("/proc/self/maps")
    if maps.exists() and len(maps.read_bytes().splitlines()) > 25_000:
        programs._compiled.clear()
        jax.clear_caches()
        gc.collect()


@pytest.fixture
def store_folder(tmp_path, monkeypatch):
    """A store that no other test sees."""
    monkeypatch.setenv("LATEBLOOM_STORE", str(tmp_path / "store"))
    return tmp_path / "store"


ROOT = Path(__file__).parent.parent
FAMILIES = {  # the modules of each family's studies, one a paper
    folder.name: sorted(path.stem for path in folder.glob("*.py") if path.stem != "__init__")
    for folder in sorted((ROOT / "src" / "latebloom" / "studies").iterdir())
    if (folder / "__init__.py").exists()
}


def belongs_to(nodeid, family):
    """Whether a test is of that family: of its methods, studies, applications or pages."""
    modules = FAMILIES[family]
    names = (family, *modules, *(module.replace("_", "-") for module in modules))
    return f"methods/{family}/" in nodeid or any(name in nodeid for name in names)


def pytest_addoption(parser):
    parser.addoption("--family", help="Only the tests of one family, its studies and applications.")
    parser.addoption(
        "--cost-limit", type=float, help="Fail where a family takes more CPU seconds a paper."
    )


def pytest_collection_modifyitems(config, items):
    family = config.getoption("--family")
    if not family:
        return
    if family not in FAMILIES:
        raise pytest.UsageError(f"there is no family {family!r}; there are: {', '.join(FAMILIES)}")
    left_out = [item for item in items if not belongs_to(item.nodeid, family)]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if belongs_to(item.nodeid, family)]


def cpu_seconds():
    """CPU seconds of this process and of those it has waited for."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


costs: dict[str, float] = {}  # CPU seconds by test, where they are summed up
begun = 0.0


def pytest_runtest_logstart():
    global begun
    begun = cpu_seconds()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_makereport(item, call):
    if call.when == "teardown":  # before the report copies them
        item.user_properties.append(("cpu", cpu_seconds() - begun))


def pytest_runtest_logreport(report):
    if report.when == "teardown":
        costs[report.nodeid] = dict(report.user_properties).get("cpu", 0.0)


def cost_table():
    """Rows of (whose tests, papers or None, CPU seconds), families first."""
    left, rows = dict(costs), []
    for family, papers in FAMILIES.items():
        own = [nodeid for nodeid in left if belongs_to(nodeid, family)]
        rows.append((family, len(papers), sum(left.pop(nodeid) for nodeid in own)))
    return [*rows, ("shared parts", None, sum(left.values()))]


def over_the_limit(limit):
    return [name for name, papers, cost in cost_table() if papers and cost > limit * papers]


def pytest_terminal_summary(terminalreporter, config):
    limit = config.getoption("--cost-limit")
    if limit is None and len(costs) < 100:  # a few tests tell nothing
        return
    terminalreporter.section("CPU seconds")
    for name, papers, cost in cost_table():
        each = f"{cost / papers:6.0f} a paper" if papers else ""
        terminalreporter.line(f"{name:20}{cost:6.0f}{each}")
    if limit is not None and (over := over_the_limit(limit)):
        terminalreporter.line(f"more than {limit:g} CPU seconds a paper: {', '.join(over)}")


def pytest_sessionfinish(session, exitstatus):
    limit = session.config.getoption("--cost-limit")
    on_worker = hasattr(session.config, "workerinput")
    if exitstatus == 0 and limit is not None and not on_worker and over_the_limit(limit):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
