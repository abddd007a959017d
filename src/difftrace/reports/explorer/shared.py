"""What checks have in common, which the page holds once: texts of tokens, and what ran and where.

A pack, see `difftrace.reports.explorer.packing`, without columns. Its header:

- `tokens`: `ids` and `pieces`, one for each token; a piece is null where it is not known
- `fields`: `[name, golden, observed, mark]`, see `difftrace.reports.explorer.details`

Checks name tokens and fields by their index here.
"""

from __future__ import annotations

from difftrace.reports.explorer.packing import Columns

# Name, golden, observed and mark.
Field = tuple[str, str | None, str | None, str]


class Shared:
    """Tokens and fields of all checks, each once, in the order in which they came."""

    def __init__(self) -> None:
        self._tokens: dict[tuple[int, str | None], int] = {}
        self._fields: dict[Field, int] = {}

    def token(self, token: int, piece: str | None) -> int:
        """Return the index of a token; one that another tokenizer has another text for is another."""
        return self._tokens.setdefault((token, piece), len(self._tokens))

    def field(self, field: Field) -> int:
        """Return the index of a field with its values."""
        return self._fields.setdefault(field, len(self._fields))

    def pack(self) -> str:
        """Return all of them as a pack."""
        ids = [token for token, _ in self._tokens]
        pieces = [piece for _, piece in self._tokens]
        return Columns().pack({"tokens": {"ids": ids, "pieces": pieces}, "fields": list(self._fields)})
