"""Do the tests notice when the mathematics changes? Mutants of the core, each run against the tests of its module.

    python -m benchmarks.mutation                        # all modules; goes on where it was stopped
    python -m benchmarks.mutation critic paths --again   # runs what survived in these modules once more
    python -m benchmarks.mutation --report               # runs nothing; prints the figures and the survivors

cosmic-ray (extra `mutation`) makes the mutants: another operator, number, comparison or constant, a loop or decorator
less. Places of a module are drawn at random, then one mutant of each place. A mutant exists in memory only: no file is
changed, and a process that a test starts sees the module as it is. Results are saved in benchmarks/results/mutation/
after each mutant, and belong to one version of a module: for another version everything is run again.
"""

from __future__ import annotations

import ast
import contextlib
import difflib
import gc
import hashlib
import importlib
import importlib.util
import json
import os
import random
import re
import resource
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.machinery import SourceFileLoader
from importlib.metadata import entry_points
from pathlib import Path
from types import CodeType
from typing import Annotated, Any

import tyro

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "mutation"
PRELOADED = ("numpy", "torch", "torch._inductor", "torch.func", "scipy.stats", "safetensors.torch", "h5py", "gymnasium",
             "minari", "hypothesis", "torchdiffeq", "tyro", "diffusers.schedulers.scheduling_ddpm")
"""Imported once, and not again for each mutant."""
SECONDS_MORE = 4.0  # of CPU time, and three times as long as the tests take without a mutant
WALL_PER_CPU = 20  # a mutant that sleeps or waits is stopped too, on a machine that is busy not before
MEMORY = 4 << 30  # bytes
OF_INTEGERS = {"RShift", "LShift", "BitOr", "BitAnd", "BitXor"}


@dataclass(frozen=True)
class Target:
    """A module and the tests that ought to notice when it changes."""

    path: str
    tests: tuple[str, ...]
    slow: str = ""
    """Names of tests that are left out, as `pytest -k` takes them: they take long, or start processes."""


TARGETS = {
    "trajectory": Target("gentraj/trajectory.py", ("tests/test_trajectory.py",)),
    "normalize": Target("gentraj/normalize.py", ("tests/test_normalize.py",)),
    "conditioning": Target("gentraj/models/conditioning.py", ("tests/models/test_conditioning.py",
                                                                  "tests/models/test_interpolation.py")),
    "samplers": Target("gentraj/diffusion/samplers.py", ("tests/diffusion/test_diffusers.py",
                                                         "tests/diffusion/test_samplers.py",
                                                         "tests/diffusion/test_exact.py"),
                       slow="go_together or float32 or share_of_the_noise or mixture or (times_that and not heun) or "
                            "((correlated or last_denoised or held_entries) and not flow)"),
    "paths": Target("gentraj/diffusion/paths.py", ("tests/diffusion/test_paths.py",)),
    "guidance": Target("gentraj/diffusion/guidance.py", ("tests/diffusion/test_guidance.py",
                                                          "tests/diffusion/test_nearest_data.py"),
                       slow="(quadratic_energy and not ve-unipc)"),
    "likelihood": Target("gentraj/diffusion/likelihood.py", ("tests/diffusion/test_likelihood.py",),
                         slow="12_entries or trained or hutchinson or between or float32 or finite or row_by_row or "
                              "beside_it or integrates or more_probes or nothing_unknown or "
                              "(closed_form and not mixture-flow)"),
    "critic": Target("agents/policies/critic.py", ("tests/agents/policies/test_critic.py",)),
    "policy": Target("agents/policies/policy.py", ("tests/agents/policies/test_policies.py",),
                     slow="earns_more or data_s_actions or bits or global_seed"),
    "checkpoint": Target("gentraj/training/checkpoint.py", ("tests/training/test_checkpoint.py",
                                                            "tests/faults/test_checkpoint_faults.py"),
                         slow="hostile or crash or executes or flipped"),
    "windows": Target("gentraj/data/windows.py", ("tests/data/test_windows.py", "tests/data/test_context.py")),
}


@dataclass(frozen=True)
class Args:
    modules: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
    """Names of modules, by default all."""
    number: int = 37
    """Mutants of each module."""
    seed: int = 0
    """Draws the mutants."""
    again: bool = False
    """Run the mutants that survived once more, such as after tests were added."""
    report: bool = False
    """Run nothing; print the figures and the survivors."""


@dataclass(frozen=True)
class Mutant:
    """One change of a module. `was` and `now` are the lines that differ."""

    operator: str
    occurrence: int
    line: int
    was: str
    now: str


def drawn(source: str, number: int, seed: int) -> Iterator[tuple[Mutant, CodeType]]:
    """Up to `number` mutants with their code. Places in the source are drawn first, then one mutant of each place.

    Mutants that do not compile and those that differ in what does nothing when it runs are left out, as are operators
    of integers in place of those of real numbers, which any test notices.
    """
    from cosmic_ray.mutating import mutate_code
    from cosmic_ray.plugins import get_operator

    chance, places, found = random.Random(seed), _places(source), 0
    waiting = list(places)
    chance.shuffle(waiting)
    while waiting and found < number:
        place = waiting.pop(0)
        name, occurrence = places[place].pop(chance.randrange(len(places[place])))
        if places[place]:
            waiting.append(place)
        changed = mutate_code(source, get_operator(name)(), occurrence)
        if (code := _compiled(changed)) is None or _behaviour(changed) == _behaviour(source):
            continue
        lines = list(difflib.ndiff(source.splitlines(), changed.splitlines()))
        was, now = (" ".join(line[2:].strip() for line in lines if line.startswith(sign)).strip() for sign in "-+")
        found += 1
        yield Mutant(name.removeprefix("core/"), occurrence, place[0], was, now), code


def _places(source: str) -> dict[tuple[int, int], list[tuple[str, int]]]:
    """By line and column, the operators of cosmic-ray that change the source there, with their occurrences."""
    from cosmic_ray.ast import ast_nodes, get_ast
    from cosmic_ray.plugins import get_operator, operator_names

    places: dict[tuple[int, int], list[tuple[str, int]]] = {}
    nodes = list(ast_nodes(get_ast(source)))
    for name in sorted(operator_names()):
        operator = get_operator(name)
        change = re.search(r"ReplaceBinaryOperator_(\w+)_(\w+)", name)
        if operator.arguments() or (change and (change[1] in OF_INTEGERS) != (change[2] in OF_INTEGERS)):
            continue
        positions = (start for node in nodes for start, _ in operator().mutation_positions(node))
        for occurrence, start in enumerate(positions):
            places.setdefault(start, []).append((name, occurrence))
    return places


def _compiled(source: str) -> CodeType | None:
    """The code, or None for an error of syntax."""
    with warnings.catch_warnings(), contextlib.suppress(SyntaxError):
        warnings.simplefilter("ignore", SyntaxWarning)  # `is` in place of `==`
        return compile(source, "mutant", "exec", dont_inherit=True)


def _behaviour(source: str) -> str:
    """The syntax tree without what does nothing when it runs: annotations, overloads and the bodies of protocols."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            protocol = any(getattr(base, "id", "") == "Protocol" for base in node.bases)
            node.body = [each for each in node.body if not (protocol or _overloads(each))]
        elif isinstance(node, ast.arg | ast.AnnAssign):
            node.annotation = ast.Name("Any")
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            node.returns = None
    return ast.dump(tree)


def _overloads(node: ast.AST) -> bool:
    return any(getattr(each, "id", "") == "overload" for each in getattr(node, "decorator_list", ()))


class InMemory(SourceFileLoader):
    """Loads a module from its mutant in place of its file."""

    def __init__(self, target: Target, code: CodeType):
        super().__init__(target.path.removesuffix(".py").replace("/", "."), str(ROOT / target.path))
        self.code = code

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        return importlib.util.spec_from_file_location(name, self.path, loader=self) if name == self.name else None

    def get_code(self, fullname: str) -> CodeType:
        return self.code


def tested(target: Target, code: CodeType | None, limit: float) -> dict[str, Any]:
    """Runs the tests of a module in a process of their own, with the code of a mutant, or None for the module itself.

    They may take `limit` seconds of CPU time. Returns the outcome (killed, stopped or survived), the test that failed
    and the CPU time.
    """
    with tempfile.TemporaryDirectory(prefix="mutation-") as folder:
        if (child := os.fork()) == 0:
            _test(target, code, limit, Path(folder))
        _, status, usage = os.wait4(child, 0)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)  # what a test left behind
        output = (Path(folder) / "output").read_text(errors="replace")
    failed = re.search(r"^(?:FAILED|ERROR) (\S+)", output, re.MULTILINE)
    outcome = "stopped" if os.WIFSIGNALED(status) else "killed" if os.WEXITSTATUS(status) else "survived"
    return {"outcome": outcome, "by": failed[1] if failed else None,
            "seconds": round(usage.ru_utime + usage.ru_stime, 2)}


def _test(target: Target, code: CodeType | None, limit: float, folder: Path) -> None:
    """The child's part of `tested`, which never returns."""
    import pytest

    exit_code = 1
    try:
        os.setsid()
        output = os.open(folder / "output", os.O_WRONLY | os.O_CREAT)
        os.dup2(output, 1)
        os.dup2(output, 2)
        resource.setrlimit(resource.RLIMIT_CPU, (int(limit) + 1, int(limit) + 2))
        resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
        signal.alarm(int(limit * WALL_PER_CPU))
        if code is not None:
            sys.meta_path.insert(0, InMemory(target, code))  # type: ignore[arg-type]
        without = ["-k", f"not ({target.slow})"] if target.slow else []
        exit_code = pytest.main([*target.tests, *without, "-x", "-q", "-rfE", "--tb=no", "-p", "no:randomly", "-p",
                                 "no:cacheprovider", "-o", "timeout=0", "--hypothesis-seed=0", "-m", "not slow", "-W",
                                 "ignore::pytest.PytestAssertRewriteWarning",
                                 f"--basetemp={folder / 'tmp'}"])
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(exit_code)


def run(name: str, args: Args) -> None:
    """Runs the mutants of a module that have no result yet, and saves each result."""
    target, path = TARGETS[name], RESULTS / f"{name}.json"
    source = (ROOT / target.path).read_text(encoding="utf-8")
    version = hashlib.sha256(ast.dump(ast.parse(source)).encode()).hexdigest()  # comments may change
    saved = json.loads(path.read_text()) if path.exists() else {}
    same = saved.get("sha256") == version and saved.get("seed") == args.seed
    known = {(m["operator"], m["occurrence"]): m for m in saved["mutants"]} if same else {}
    plain = tested(target, None, 600)
    if plain["outcome"] != "survived":
        raise SystemExit(f"{name}: the tests fail without a mutant, first {plain['by']}; let them pass")
    print(f"{name}: the tests take {plain['seconds']:.1f} s of CPU time", flush=True)
    results: list[dict[str, Any]] = []
    for mutant, code in drawn(source, args.number, args.seed):
        before = known.get((mutant.operator, mutant.occurrence))
        done = before is not None and not (args.again and before["outcome"] == "survived")
        result = before if done else asdict(mutant) | tested(target, code, 3 * plain["seconds"] + SECONDS_MORE)
        if not done:
            print(f"{time.strftime('%H:%M:%S')} {name}:{mutant.line} {result['outcome']} {mutant.now!r}", flush=True)
        results.append(result)
        rest = [m for key, m in known.items() if key not in {(r["operator"], r["occurrence"]) for r in results}]
        _save(path, {"module": target.path, "sha256": version, "seed": args.seed, "tests": target.tests,
                     "without": target.slow, "seconds": plain["seconds"], "mutants": results + rest})


def _save(path: Path, found: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_suffix(".new").write_text(json.dumps(found, indent=1) + "\n")
    path.with_suffix(".new").replace(path)


def table(names: tuple[str, ...]) -> list[str]:
    """Lines of a table: for each module its mutants, those killed, stopped and surviving, and the share noticed."""
    lines = ["| module | mutants | killed | stopped | survived | noticed |", "|---|---|---|---|---|---|"]
    total: Counter[str] = Counter()
    for name in names:
        found = json.loads((RESULTS / f"{name}.json").read_text())
        count = Counter(mutant["outcome"] for mutant in found["mutants"])
        total += count
        lines.append(_row(f"`{found['module']}`", count))
    return [*lines, _row("all", total)]


def _row(name: str, count: Counter[str]) -> str:
    number = count.total()
    cells = name, number, count["killed"], count["stopped"], count["survived"], f"{1 - count['survived'] / number:.0%}"
    return "| " + " | ".join(str(cell) for cell in cells) + " |"


def main(args: Args) -> None:
    if unknown := set(args.modules) - set(TARGETS):
        raise SystemExit(f"unknown modules {', '.join(sorted(unknown))}; known: {', '.join(TARGETS)}")
    names = args.modules or tuple(TARGETS)
    if not args.report:
        if importlib.util.find_spec("cosmic_ray") is None:
            raise SystemExit("cosmic-ray, which makes the mutants, is not installed; pip install -e '.[dev,mutation]'")
        os.chdir(ROOT)
        os.environ.update(OMP_NUM_THREADS="1", PYTHONPATH=str(ROOT))
        for package in PRELOADED:
            importlib.import_module(package)
        for plugin in entry_points(group="pytest11"):
            plugin.load()
        gc.freeze()  # what is loaded here is no garbage of a child
        for name in names:
            run(name, args)
    names = tuple(name for name in names if (RESULTS / f"{name}.json").exists())
    for name in names:
        for mutant in json.loads((RESULTS / f"{name}.json").read_text())["mutants"]:
            if mutant["outcome"] == "survived":
                print(f"{name}:{mutant['line']} {mutant['operator']}\n  - {mutant['was']}\n  + {mutant['now']}")
    print("\n".join(table(names)))


if __name__ == "__main__":
    main(tyro.cli(Args, description=__doc__))
