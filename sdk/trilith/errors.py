"""Every error that Trilith raises on purpose. Imports nothing of ours.

    TrilithError
    ├── SettingsError                 yours: the configuration is wrong
    ├── MissingExtra                  yours: an optional part is not installed  (also ImportError)
    ├── DataError                     yours: a file or table is not what was promised  (also ValueError)
    │   └── ContractViolation
    ├── IntegrityError                a stored thing is not the thing that was recorded
    ├── EngineError                   a local engine could not be installed, started or kept alive
    └── APIError                      a call failed
        ├── APIConnectionError        no answer came                            retryable
        │   └── APITimeoutError
        └── APIStatusError            an answer came, and it was an error
            ├── BadRequestError              400  yours
            ├── AuthenticationError          401  yours
            ├── PermissionDeniedError        403  yours (also a policy's block)
            ├── NotFoundError                404  yours
            ├── ConflictError                409                                retryable
            ├── UnprocessableEntityError     422  yours
            ├── RateLimitError               429                                retryable
            │   └── BudgetExceededError      429  yours
            └── InternalServerError         5xx  theirs                         retryable

Two questions are answered by every class: whose fault is it (`at_fault`), and may the same call be
tried again (`retryable`).
"""

from __future__ import annotations

from typing import ClassVar, Literal, TypeAlias

Fault: TypeAlias = Literal["caller", "service", "network"]


class TrilithError(Exception):
    """Base of all errors that Trilith raises on purpose."""

    at_fault: ClassVar[Fault] = "caller"
    retryable: bool = False

    def __reduce__(self) -> tuple[object, ...]:
        # Exceptions are copied and sent between processes by calling their class with `args` alone.
        return _again, (type(self), self.args, dict(self.__dict__))


def _again(kind: type[TrilithError], args: tuple[object, ...], state: dict[str, object]) -> TrilithError:
    error = kind.__new__(kind, *args)
    error.__dict__.update(state)
    return error


class SettingsError(TrilithError):
    """The configuration is wrong; the message names file, line, key, and what was expected."""


class MissingExtra(TrilithError, ImportError):
    """An optional part is not installed; the message holds the install line."""


class DataError(TrilithError, ValueError):
    """A file or a table is not what was promised."""


class ContractViolation(DataError):
    """Data broke its contract; `violations` lists column, check and count."""

    def __init__(self, message: str, *, violations: list[str]) -> None:
        super().__init__(message)
        self.violations = violations


class IntegrityError(TrilithError):
    """A stored artefact or record does not match its recorded digest."""

    at_fault: ClassVar[Fault] = "service"


class EngineError(TrilithError):
    """A local engine could not be installed, started, or kept alive."""

    at_fault: ClassVar[Fault] = "service"


class APIError(TrilithError):
    """A call to a gateway or an upstream failed."""

    at_fault: ClassVar[Fault] = "service"

    def __init__(self, message: str, *, request_id: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.request_id = request_id


class APIConnectionError(APIError):
    """No answer came: the address is wrong, nothing listens there, or the connection broke."""

    at_fault: ClassVar[Fault] = "network"
    retryable = True

    def __init__(self, message: str, *, request_id: str | None = None, sent: bool = True) -> None:
        super().__init__(message, request_id=request_id)
        self.sent = sent
        """Whether the other side may have acted upon the call; False when there was no connection to it."""
        self.received = b""
        """What had come of a whole answer when the connection broke; what was used may stand in it."""
        self.upstream = ""
        """Which replica it was, where an upstream is several."""


class APITimeoutError(APIConnectionError):
    """No answer came in time."""


class APIStatusError(APIError):
    """An answer came, and it was an error."""

    def __init__(
        self,
        message: str,
        *,
        status_code: int,
        code: str | None = None,
        param: str | None = None,
        type: str | None = None,
        request_id: str | None = None,
        retry_after_s: float | None = None,
        body: object = None,
    ) -> None:
        super().__init__(message, request_id=request_id)
        self.status_code = status_code
        self.code = code
        """Machine-readable reason, for example `model_not_found`."""
        self.param = param
        self.type = type
        self.retry_after_s = retry_after_s
        """Seconds to wait before the next try, where the server said so."""
        self.body = body
        """The decoded error body, or None when it was not JSON."""


class BadRequestError(APIStatusError):
    """400: the request is malformed."""

    at_fault: ClassVar[Fault] = "caller"


class AuthenticationError(APIStatusError):
    """401: no key, or a key that is not known."""

    at_fault: ClassVar[Fault] = "caller"


class PermissionDeniedError(APIStatusError):
    """403: the key may not do this, or a policy blocked the content."""

    at_fault: ClassVar[Fault] = "caller"


class NotFoundError(APIStatusError):
    """404: no such model or record."""

    at_fault: ClassVar[Fault] = "caller"


class ConflictError(APIStatusError):
    """409: the state has moved on."""

    retryable = True


class UnprocessableEntityError(APIStatusError):
    """422: well-formed, but not acceptable."""

    at_fault: ClassVar[Fault] = "caller"


class RateLimitError(APIStatusError):
    """429: too fast; wait `retry_after_s`."""

    at_fault: ClassVar[Fault] = "caller"
    retryable = True


class BudgetExceededError(RateLimitError):
    """429 `insufficient_quota`: the key's budget would be overrun. Waiting a moment does not help."""

    retryable = False


class InternalServerError(APIStatusError):
    """5xx: the gateway or its upstream failed."""

    retryable = True


_BY_STATUS: dict[int, type[APIStatusError]] = {
    400: BadRequestError,
    401: AuthenticationError,
    403: PermissionDeniedError,
    404: NotFoundError,
    409: ConflictError,
    422: UnprocessableEntityError,
    429: RateLimitError,
}


def status_error_class(status_code: int, code: str | None = None) -> type[APIStatusError]:
    """Return the class for an HTTP status and the machine-readable code in its body."""
    if status_code == 429 and code == "insufficient_quota":
        return BudgetExceededError
    if status_code >= 500:
        return InternalServerError
    return _BY_STATUS.get(status_code, APIStatusError)
