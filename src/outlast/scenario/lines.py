"""On which line of a TOML file a table or a key stands, so that a message can say so. tomllib does not tell.

Not a parser: what it is given has been parsed already, so it only has to know where strings, comments and brackets begin
and end. `key path -> line` holds every header and every key that begins a line; what stands inside an inline table or
an array is found at the key that it belongs to.
"""

import re

Path = tuple[str | int, ...]

_SKIP = re.compile(
    r'"""(?:\\.|[^\\])*?"{3,5}'  # A multi-line string may end in up to two quotes of its own.
    r"|'''.*?'{3,5}"
    r'|"(?:\\.|[^"\\\n])*"'
    r"|'[^'\n]*'"
    r"|\#[^\n]*",
    re.DOTALL,
)
_KEY = re.compile(r"""[ \t]*(?:([A-Za-z0-9_-]+)|"((?:\\.|[^"\\\n])*)"|'([^'\n]*)')[ \t]*(\.?)""")


class Lines:
    """The lines of one text, which is valid TOML."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._found: dict[Path, int] = {}
        self._counts: dict[Path, int] = {}
        self._scan()

    def of(self, path: Path) -> int:
        """The line of a key or table, or of the nearest thing around it; 1 if there is none."""
        for length in range(len(path), 0, -1):
            line = self._found.get(path[:length])
            if line is not None:
                return line
        return 1

    def _scan(self) -> None:
        text, at, line, table = self._text, 0, 1, Path()
        while at < len(text):
            end = self._end_of_statement(at)
            statement = text[at:end]
            body = statement.lstrip()
            first = line + statement[: len(statement) - len(body)].count("\n")
            if body.startswith("["):
                table = self._header(body, first)
            elif body and not body.startswith("#"):
                self._note((*table, *_dotted(body)), first)
            line += statement.count("\n")
            at = end

    def _end_of_statement(self, at: int) -> int:
        """The place after the line end that ends this statement: one outside of strings and brackets."""
        text, depth = self._text, 0
        while at < len(text):
            letter = text[at]
            if letter in "\"'#" and (match := _SKIP.match(text, at)):
                at = match.end()
                continue
            depth += (letter in "[{") - (letter in "]}")
            at += 1
            if letter == "\n" and depth == 0:
                break
        return at

    def _header(self, body: str, line: int) -> Path:
        double = body.startswith("[[")
        names = _dotted(body[2 if double else 1 :])
        path = Path()
        for i, name in enumerate(names):
            path = (*path, name)
            last = i == len(names) - 1
            if double and last:
                self._counts[path] = self._counts.get(path, -1) + 1
                self._note(path, line)
            if path in self._counts:
                path = (*path, self._counts[path])
        self._note(path, line)
        return path

    def _note(self, path: Path, line: int) -> None:
        for length in range(1, len(path) + 1):
            self._found.setdefault(path[:length], line)


def _dotted(text: str) -> Path:
    names: list[str | int] = []
    at = 0
    while (match := _KEY.match(text, at)) is not None:
        names.append(next(group for group in match.groups()[:3] if group is not None))
        at = match.end()
        if not match[4]:
            break
    return tuple(names)
