"""The documentation tells the truth: its commands parse, its links lead somewhere, its names exist, in both languages."""

from __future__ import annotations

import ast
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

from lucidlm.cli.main import app
from lucidlm.cli.using.sampling import SAMPLING
from lucidlm.data.corpus.cards import DataCard
from lucidlm.data.corpus.prepare import PrepareConfig
from lucidlm.evaluate.runner import Evaluation
from lucidlm.inference.sampler import SamplingConfig
from lucidlm.train.finetune.config import KINDS, FinetuneConfig
from lucidlm.train.pretrain.run import PretrainConfig

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "lucidlm"
TWINS = [
    (ROOT / "README.md", ROOT / "README.zh-CN.md"),
    *((path, ROOT / "docs" / "zh-CN" / path.name) for path in sorted((ROOT / "docs").glob("*.md"))),
    *((path, ROOT / "docs/zh-CN/principles" / path.name) for path in sorted((ROOT / "docs/principles").glob("*.md"))),
]
PAGES = sorted({*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")})
CONFIGS = {"prepare.yaml": PrepareConfig, "pretrain.yaml": PretrainConfig, "finetune.yaml": FinetuneConfig}

OPTIONS = ("length", *SAMPLING, "seed")

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
COMMAND_LINE = typer.main.get_command(app)


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def blocks(page: Path, language: str) -> list[str]:
    return [body for kind, body in FENCE.findall(page.read_text(encoding="utf-8")) if kind == language]


def prose(page: Path) -> str:
    return FENCE.sub("", page.read_text(encoding="utf-8"))


def inline_code(page: Path) -> list[str]:
    return re.findall(r"`([^`\n]+)`", prose(page))


def headings(page: Path) -> list[tuple[int, str]]:
    return [(len(marks), title) for marks, title in re.findall(r"^(#+) (.+)$", prose(page), re.MULTILINE)]


def anchor(title: str) -> str:
    """Return what GitHub calls a heading in links."""
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


def commands(page: Path) -> list[list[str]]:
    """Return the words of each command in the page's bash blocks; a pipe's parts are commands of their own."""
    found = []
    for block in blocks(page, "bash"):
        for line in block.replace("\\\n", " ").splitlines():
            lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
            lexer.commenters, lexer.whitespace_split = "#", True
            command: list[str] = []
            for word in [*lexer, "|"]:
                if set(word) <= set("|&;"):
                    found += [command] if command else []
                    command = []
                else:
                    command.append(word)
    return found


def parse(words: list[str]) -> None:
    """Parse a call of lucidlm down to its last option, without running it."""
    command = COMMAND_LINE
    while subcommands := getattr(command, "commands", None):
        assert words, f"{command.name} needs a subcommand"
        assert words[0] in subcommands, f"there is no command {words[0]!r}"
        command, words = subcommands[words[0]], words[1:]
    command.make_context(command.name, list(words)).close()


def options(command: Any) -> set[str]:
    parameters = command.get_params(typer.Context(command))  # some are made when they are first asked for
    found = {option for parameter in parameters for option in parameter.opts + parameter.secondary_opts}
    return found.union({"--help"}, *(options(inner) for inner in getattr(command, "commands", {}).values()))


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_parse(page: Path) -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for words in commands(page):
        if words[0] == "make":
            assert words[1] in targets, f"make has no target {words[1]!r}"
            for word in words[2:]:
                name, _, value = word.partition("=")
                assert name == "ARGS"
                if words[1] == "demo":
                    parse(["demo", *shlex.split(value)])
        elif words[0] == "lucidlm":
            try:
                parse(words[1:])
            except Exception as error:
                pytest.fail(f"{shlex.join(words)}: {error}")
        else:
            assert words[0] in {"pip", "echo"}, f"{words[0]} is a command this test does not know"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_options_in_the_text_exist(page: Path) -> None:
    known = options(COMMAND_LINE)
    for code in inline_code(page):
        if code.startswith("lucidlm "):
            command = COMMAND_LINE
            for word in code.split()[1:]:
                if not word.startswith("-") and hasattr(command, "commands"):
                    assert word in command.commands, f"`{code}`: there is no such command"
                    command = command.commands[word]
        if code.startswith(("-", "lucidlm ")):
            for option in re.findall(r"(?<!\S)--[\w-]+", code):
                assert option in known, f"`{code}`: no command has this option"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if "://" in target:
            continue
        path, _, section = target.partition("#")
        file = page.parent / path if path else page
        assert file.exists(), f"{target}: there is no such file"
        if section:
            assert section in [anchor(title) for _, title in headings(file)], f"{target}: there is no such section"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_files_and_modules_that_are_named_exist(page: Path) -> None:
    places = {path.name for path in (*ROOT.iterdir(), *PACKAGE.iterdir()) if path.is_dir()}
    for code in inline_code(page):
        if re.fullmatch(r"[\w.-]+(/[\w.-]+)*(/|\.py|\.md|\.toml)", code) and code.split("/")[0] in places:
            assert (ROOT / code).exists() or (PACKAGE / code).exists(), f"`{code}`: there is no such file"
        if re.fullmatch(r"(core|data|model|train|generate|evaluate|report)\.[a-z_]+", code):
            name = code.replace(".", "/")
            if not code.endswith((".safetensors", ".html", ".onnx", ".onnx_data")):
                assert (PACKAGE / f"{name}.py").exists(), f"`{code}`: there is no such module"
        if re.fullmatch(r"lucidlm(\.\w+){2,}", code):
            assert resolves(code), f"`{code}` does not exist"


def resolves(name: str) -> bool:
    """Return whether a dotted name leads to a module or to something in one."""
    module, _, attribute = name.rpartition(".")
    return source_of(name) is not None or attribute in names_in(module)


def source_of(module: str) -> Path | None:
    path = ROOT / "src" / module.replace(".", "/")
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.exists()), None)


def names_in(module: str) -> set[str]:
    """Return what a module binds or offers by `__all__`: read, not imported, since some need what an extra installs."""
    if (file := source_of(module)) is None:
        return set()
    found: set[str] = set()
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        match node:
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                found.add(name)
            case ast.Import(names=aliases) | ast.ImportFrom(names=aliases):
                found |= {alias.asname or alias.name for alias in aliases}
            case ast.Assign(targets=[ast.Name(id="__all__")], value=value):
                found |= set(ast.literal_eval(value))
            case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
                found.add(name)
    return found


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_python_compiles_and_finds_what_it_imports(page: Path) -> None:
    for block in blocks(page, "python"):
        for node in ast.walk(ast.parse(block, name_of(page))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("lucidlm"):
                for alias in node.names:
                    assert resolves(f"{node.module}.{alias.name}"), f"{node.module} has no {alias.name}"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_configurations_are_accepted(page: Path) -> None:
    for block in blocks(page, "yaml"):
        name = block.splitlines()[0].removeprefix("# ")
        CONFIGS[name].parse(yaml.safe_load(block), where=name_of(page))


class WithoutWords(ast.NodeTransformer):
    """Takes the words out of strings, and keeps them: what is computed, and how numbers are formatted, stays."""

    def __init__(self) -> None:
        self.words: list[str] = []

    def visit_JoinedStr(self, node: ast.JoinedStr) -> ast.JoinedStr:
        return ast.JoinedStr([self.visit(part) for part in node.values if isinstance(part, ast.FormattedValue)])

    def visit_FormattedValue(self, node: ast.FormattedValue) -> ast.FormattedValue:
        return ast.FormattedValue(self.visit(node.value), node.conversion, node.format_spec)

    def visit_Constant(self, node: ast.Constant) -> ast.Constant:
        if not isinstance(node.value, str):
            return node
        self.words.append(node.value)
        return ast.Constant("words")


def check_only_words_differ(ours: str, theirs: str) -> None:
    """Fail unless two blocks are the same code, save for strings that are Chinese in the second."""
    takers = WithoutWords(), WithoutWords()
    left, right = (ast.dump(taker.visit(ast.parse(code))) for taker, code in zip(takers, (ours, theirs), strict=True))
    assert left == right
    for word, other in zip(takers[0].words, takers[1].words, strict=True):
        assert word == other or re.search(r"[\u4e00-\u9fff]", other) or {word, other} == {"en", "zh"}


@pytest.mark.parametrize(("english", "chinese"), TWINS, ids=lambda path: path.name)
def test_both_languages_say_the_same(english: Path, chinese: Path) -> None:
    assert [level for level, _ in headings(english)] == [level for level, _ in headings(chinese)]
    assert commands(english) == commands(chinese)
    kinds = [kind for kind, _ in FENCE.findall(english.read_text(encoding="utf-8"))]
    assert kinds == [kind for kind, _ in FENCE.findall(chinese.read_text(encoding="utf-8"))]
    for ours, theirs in zip(blocks(english, "python"), blocks(chinese, "python"), strict=True):
        if "principles" in english.parts:  # their code prints what readers see
            check_only_words_differ(ours, theirs)
        else:
            assert ast.dump(ast.parse(ours)) == ast.dump(ast.parse(theirs))
    for ours, theirs in zip(blocks(english, "yaml"), blocks(chinese, "yaml"), strict=True):
        assert yaml.safe_load(ours) == yaml.safe_load(theirs)
    rows = [len(re.findall(r"^\|", prose(page), re.MULTILINE)) for page in (english, chinese)]
    assert rows[0] == rows[1], "their tables have other numbers of rows"


@pytest.mark.parametrize(
    ("page", "fields"),
    [
        ("data.md", DataCard.model_fields),
        ("data.md", PrepareConfig.model_fields),
        ("training.md", PretrainConfig.model_fields),
        ("finetuning-and-evaluation.md", {name: None for kind in KINDS for name in kind.model_fields}),
        ("finetuning-and-evaluation.md", Evaluation.model_fields),
        # By their options, those that have one.
        (
            "generation.md",
            {name.replace("_", "-" if name in OPTIONS else "_"): None for name in SamplingConfig.model_fields},
        ),
    ],
    ids=["card", "prepare", "pretrain", "finetune", "evaluation", "sampling"],
)
def test_every_field_is_documented(page: str, fields: dict[str, object]) -> None:
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    missing = [name for name in fields if not re.search(rf"\b{name}\b", text)]
    assert not missing, f"docs/{page} does not mention {', '.join(missing)}"
