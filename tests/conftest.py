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


def pytest_addoption(parser):
    parser.addoption("--family", help="Only the tests of one family, its studies and applications.")


def pytest_collection_modifyitems(config, items):
    """With --family, leave the tests of its methods, studies, applications and pages."""
    family = config.getoption("--family")
    if not family:
        return
    root = Path(__file__).parent.parent
    studies = root / "src" / "latebloom" / "studies" / family
    if not studies.is_dir():
        known = sorted(p.name for p in studies.parent.iterdir() if (p / "__init__.py").exists())
        raise pytest.UsageError(f"there is no family {family!r}; there are: {', '.join(known)}")
    modules = [path.stem for path in studies.glob("*.py") if path.stem != "__init__"]
    names = (family, *modules, *(module.replace("_", "-") for module in modules))

    def wanted(item):
        where = item.path.relative_to(root / "tests").as_posix()
        return f"methods/{family}/" in where or any(name in item.nodeid for name in names)

    left_out = [item for item in items if not wanted(item)]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if wanted(item)]
