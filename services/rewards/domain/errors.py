"""What is wrong with a definition."""


class DefinitionError(ValueError):
    """A rule or table that cannot be used; `pointer` is the JSON pointer of what is wrong in it."""

    def __init__(self, pointer: str, detail: str) -> None:
        super().__init__(f"{pointer}: {detail}")
        self.pointer = pointer
        self.detail = detail
