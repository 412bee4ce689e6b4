"""The one shape of every error: `{"message": ...}`."""

from starlette.responses import JSONResponse


class Refusal(BaseException):
    """An error answer, raised anywhere below the edge, which sends it.

    It is no `Exception` because BentoML catches those around every API: it would log a traceback
    for each mistake of a caller, and answer in a shape of its own.
    """

    def __init__(
        self, status: int, message: str | dict[str, str], headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(status, message)
        self.response = JSONResponse({"message": message}, status, headers)
