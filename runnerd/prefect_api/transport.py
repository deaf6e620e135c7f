"""Makes one request to Prefect's API: credentials, CSRF, redirects, bounds, and errors of our own for all failures.

Every outcome is a Reply, ApiAway (retry), ApiDenied (credentials) or ApiRejected (this request is wrong), and is noted
in the health. A 404 counts only if Prefect made it: a proxy before a server that is being replaced also answers 404,
which must not make runnerd forget a run. No message has a secret in it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import httpx

from runnerd.core.errors import ApiAway, ApiDenied, ApiError, ApiRejected
from runnerd.core.place import Json
from runnerd.core.prefect import ApiHealth
from runnerd.prefect_api.body import Body, read_body
from runnerd.prefect_api.clock import Skew, measured_skew
from runnerd.prefect_api.connections import ClientPool, OpenClient, is_cloud, location_of
from runnerd.prefect_api.credentials import Credentials
from runnerd.prefect_api.csrf import CHANGES, Csrf
from runnerd.prefect_api.failure_words import broken_words, may_have_arrived, server_words, without_ids
from runnerd.prefect_api.health import STALE, HealthBook
from runnerd.prefect_api.rate_limits import RateLimits
from runnerd.prefect_api.raw_answer import RawAnswer
from runnerd.prefect_api.redirects import HOPS_MAX, REDIRECTS, origin, target
from runnerd.prefect_api.traffic import Traffic
from runnerd.prefect_api.values import ODD, read_retry_after_s

RENEW_AFTER_FAILURES = 3
_TRY_LATER = frozenset({408, 425, 429, 502, 503, 504})
_IS_URL_RIGHT = "is api.url right? It ends in /api on a self-hosted server"


@dataclass(frozen=True, slots=True)
class Reply:
    """Holds an answer that is not a failure: its status and its JSON, None for an empty body."""

    status: int
    data: Json


class Transport:
    """Makes requests below one base URL. A read or write takes at most `timeout_s`, a whole request twice as long."""

    def __init__(
        self,
        *,
        url: str,
        credentials: Callable[[], Credentials],
        headers: Mapping[str, str],
        timeout_s: float,
        now: Callable[[], datetime],
        open_client: OpenClient,
        read_again: Callable[[], Credentials] | None = None,
        on_health: Callable[[ApiHealth], None] | None = None,
    ) -> None:
        self._base = httpx.URL(url.rstrip("/"))
        self._shown = f"{self._base.scheme}://{self._base.netloc.decode()}{self._base.path}"
        self._known_credentials = credentials
        self._read_credentials = read_again or credentials
        self._credentials: Credentials | None = None
        self._headers = dict(headers)
        self._timeout_s = timeout_s
        self._now = now
        self._book = HealthBook(now=now, on_health=on_health)
        self._pool = ClientPool(open_client=open_client)
        self._csrf = Csrf(now=now)
        self._csrf_fetch = asyncio.Lock()
        self._failures = 0
        self.traffic = Traffic()
        self._limits = RateLimits(shared=is_cloud(self._base), clock=lambda: asyncio.get_running_loop().time())
        self.skew: Skew | None = None  # by the latest answer with a Date
        self.redirected = False  # whether an answer came from another origin than api.url

    @property
    def health(self) -> ApiHealth:
        """Whether the API answers, by the outcomes of the latest requests."""
        return self._book.health

    @property
    def epoch(self) -> int:
        """How many outages have begun; facts about the server from an older epoch may be outdated."""
        return self._book.epoch

    def renew_credentials(self) -> None:
        """Take the credentials that are known by then for the next request."""
        self._credentials = None

    async def close(self) -> None:
        """Close all connections."""
        await self._pool.renew()

    async def request(
        self,
        method: str,
        path: str,
        *,
        body: Json = None,
        values: frozenset[int] = frozenset(),
        sure: bool = False,
        shrinks: bool = False,
    ) -> Reply:
        """Make one request. A status in `values` is an answer like a 2xx; any other failure raises ApiError.

        `sure`: the request cannot be wrong, so a rejection of it is a failure of the server (ApiAway).
        `shrinks`: after an answer that is too long the caller asks for less, so that is no failure of the API.
        """
        asked = f"{method} {path.partition('?')[0]}"
        if (wait_s := self._limits.wait_s(without_ids(asked))) > 0:
            raise ApiAway(f"Prefect at {self._shown} wants no {asked} for {wait_s:.0f} s", retry_after_s=wait_s)
        content = None if body is None else json.dumps(body, separators=(",", ":")).encode()
        with self.traffic.request() as number:
            raw = await self._exchange_bounded(asked, number, self._with_csrf(method, path, content))
            self.traffic.note_answer()
        self._failures = 0
        if raw.body.too_long and shrinks:
            raise ApiAway(
                f"cannot use Prefect at {self._shown}: the answer {raw.body.why}", answered=True, too_long=True
            )
        return self._reply(asked, raw, values, sure)

    async def _exchange_bounded(self, asked: str, number: int, exchange: Coroutine[Any, Any, RawAnswer]) -> RawAnswer:
        """Make the exchange within the time limit. Raises ApiAway or ApiDenied, noted in the health."""
        try:
            async with asyncio.timeout(2 * self._timeout_s):
                # In a task of its own: anyio before 4 (Debian 12) cancels the task in which it connects without
                # uncancelling it, after which this timeout and a TaskGroup of the caller mistake who was cancelled.
                return await asyncio.create_task(exchange, name=asked)
        except ApiDenied as error:  # the credentials cannot be read
            self._book.degraded(without_ids(asked), str(error))
            raise
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, OSError, *ODD) as error:
            # `from None`: the chain of an httpx exception may quote a header.
            raise await self._note_broken(error, asked, number) from None

    # --- requests: CSRF around credentials around redirects around one exchange ----------------------------

    async def _with_csrf(self, method: str, path: str, content: bytes | None) -> RawAnswer:
        if method not in CHANGES:
            return await self._with_credentials(method, path, content, {})
        denial = await self._fetch_token()
        token = self._csrf.headers()
        raw = denial or await self._with_credentials(method, path, content, token)
        if self._csrf.drop_refused_token(raw.status, raw.data, sent=token):
            denial = await self._fetch_token()
            raw = denial or await self._with_credentials(method, path, content, self._csrf.headers())
        return raw

    async def _fetch_token(self) -> RawAnswer | None:
        """Request a CSRF token if one is wanted; return the answer only when it denies access."""
        # Two requests at once would invalidate each other's token.
        async with self._csrf_fetch:
            if not self._csrf.wanted:
                return None
            raw = await self._with_credentials("GET", self._csrf.path, None, {})
            self._csrf.store_token(raw.status, raw.data)
            # The answer to the change would be that its token is missing, which hides that access is denied.
            return raw if raw.status == 401 else None

    async def _with_credentials(
        self, method: str, path: str, content: bytes | None, extra: dict[str, str]
    ) -> RawAnswer:
        known = self._credentials
        used = self._credentials = self._known_credentials() if known is None or known.outdated else known
        raw = await self._follow_redirects(method, path, content, extra, used)
        if raw.status in (401, 403):
            fresh = self._credentials = self._read_credentials()
            if fresh != used:
                raw = await self._follow_redirects(method, path, content, extra, fresh)
        return raw

    async def _follow_redirects(
        self, method: str, path: str, content: bytes | None, extra: dict[str, str], credentials: Credentials
    ) -> RawAnswer:
        """Follow redirects with the same method: httpx would turn the POST of an http-to-https redirect into a GET."""
        url = httpx.URL(f"{self._base}{path}")
        private = {**self._headers, **credentials.header(), **extra}
        plain = {"Accept-Encoding": "gzip"}  # what body.py can read within bounds
        if content is not None:
            plain["Content-Type"] = "application/json"
        for _ in range(HOPS_MAX):
            headers = {**private, **plain} if self._is_ours(url) else plain
            raw = await self._exchange(method, url, headers, content)
            if raw.status not in REDIRECTS or not raw.location:
                return raw
            found = target(url, raw.location, base=self._base)
            if isinstance(found, str):
                return replace(raw, body=Body(why=found))
            url = found
        return replace(raw, body=Body(why="leads through too many redirects"))

    def _is_ours(self, url: httpx.URL) -> bool:
        """Return whether credentials may be sent there: to the origin of api.url, and to no other."""
        return origin(url) == origin(self._base)

    async def _exchange(self, method: str, url: httpx.URL, headers: dict[str, str], content: bytes | None) -> RawAnswer:
        sent = self._now()
        self.traffic.note_sent()
        async with (
            self._pool.client(url) as client,
            client.stream(method, url, headers=headers, content=content, follow_redirects=False) as response,
        ):
            ours = self._is_ours(url)
            if ours:
                date = response.headers.get("Date")
                self.skew = measured_skew(date, sent=sent, received=self._now()) or self.skew
            body = await read_body(response)
        self.redirected = self.redirected or not ours
        elsewhere = None if ours else origin(url)
        return RawAnswer(response.status_code, response.headers, body, location_of(response), elsewhere)

    # --- outcomes -----------------------------------------------------------------------------------------

    async def _note_broken(self, error: Exception, asked: str, request: int) -> ApiAway:
        self._failures += 1
        if self._failures % RENEW_AFTER_FAILURES == 0:
            # A connection that a firewall drops, or an address that has moved, must not be used for ever.
            await self._pool.renew()
        words = broken_words(error)
        kind = without_ids(asked)
        if not self.traffic.answered_since(request):  # else this request is older than what the health says
            self._book.unreachable(words)
        elif self.traffic.note_unanswered(kind, request) > 1:  # the first may be lost in a restart of the server
            lasts = STALE + timedelta(seconds=2 * self._timeout_s)  # the next one may take so long
            self._book.degraded(kind, f"{kind}: {words}", lasts=lasts)
        return ApiAway(f"cannot reach Prefect at {self._shown}: {words}", unsure=may_have_arrived(error))

    def _reply(self, asked: str, raw: RawAnswer, values: frozenset[int], sure: bool) -> Reply:
        error = self._failure(asked, raw, values)
        if isinstance(error, ApiRejected) and sure:
            error = self._away(asked, raw, f"HTTP {raw.status} from {asked}", server_words(raw.data))
        if error is None or isinstance(error, ApiRejected):  # the API works; only this request is wrong
            self.traffic.note_success(without_ids(asked))
            self._book.ok(without_ids(asked))
        if error is not None:
            raise error
        return Reply(raw.status, raw.data)

    def note_readable(self, what: str) -> None:
        """Note in the health that this answer could be read."""
        self._book.ok(what)

    def note_unreadable(self, what: str, why: str) -> ApiAway:
        """Note an answer that is not Prefect's, in spite of its status, but perhaps a proxy's; return the error."""
        words = f"cannot read {what} as Prefect sent it: {why}"
        self._book.degraded(what, f"{words}; {_IS_URL_RIGHT}")
        return ApiAway(words, answered=True)

    def _failure(self, asked: str, raw: RawAnswer, values: frozenset[int]) -> ApiError | None:
        status = raw.status
        if status in (401, 403):
            return self._denied(asked, raw)
        if status >= 500 or status in _TRY_LATER:
            return self._away(asked, raw, f"HTTP {status} from {asked}", server_words(raw.data))
        if raw.body.why is not None:
            return self._away(asked, raw, f"HTTP {status} from {asked} {raw.body.why}", _IS_URL_RIGHT)
        if status < 200:
            return self._away(asked, raw, f"HTTP {status} from {asked} is no final answer", _IS_URL_RIGHT)
        if status < 300 or (status in values and not raw.no_such_route):
            return None
        if status in (404, 405) and raw.no_such_route:
            return self._away(asked, raw, f"HTTP {status} from {asked}", _IS_URL_RIGHT)
        if status < 400:
            return self._away(asked, raw, f"HTTP {status} from {asked}", "a redirect without a location")
        return ApiRejected(
            f"cannot {asked}: HTTP {status}: {server_words(raw.data) or 'no reason given'}", status=status
        )

    def _away(self, asked: str, raw: RawAnswer, what: str, why: str) -> ApiAway:
        if raw.in_maintenance:
            return self._maintained(asked, raw)
        words = f"{what}: {why}" if why else what
        self._book.degraded(without_ids(asked), without_ids(words))
        retry_after_s = read_retry_after_s(raw.headers.get("Retry-After"), now=self._now())
        if raw.status == 429 and retry_after_s is not None:
            self._limits.note(without_ids(asked), wait_s=retry_after_s)
        return ApiAway(
            f"cannot use Prefect at {self._shown}: {words}",
            answered=True,
            too_long=raw.body.too_long,
            later=raw.status in _TRY_LATER,
            retry_after_s=retry_after_s,
        )

    def _maintained(self, asked: str, raw: RawAnswer) -> ApiAway:
        """Note maintenance. It is no answer to this request: every other request would be answered likewise."""
        words = server_words(raw.data)
        self._book.maintenance(without_ids(asked), "in maintenance" + (f": {without_ids(words)}" if words else ""))
        return ApiAway(
            f"Prefect at {self._shown} is in maintenance",
            maintenance=True,
            retry_after_s=read_retry_after_s(raw.headers.get("Retry-After"), now=self._now()),
        )

    def _denied(self, asked: str, raw: RawAnswer) -> ApiDenied:
        who = (self._credentials or Credentials()).kind
        if raw.elsewhere is not None:
            detail = f"{raw.status}: redirected to {raw.elsewhere}, which gets no credentials; correct api.url"
        elif raw.status == 401:
            detail = f"401: {who} is not accepted"
        else:
            why = server_words(raw.data)
            detail = f"403: {who} may not {without_ids(asked)}" + (f" ({why})" if why else "")
        self._book.degraded(without_ids(asked), detail)
        forbidden = raw.elsewhere is None and raw.status == 403
        return ApiDenied(f"cannot use Prefect at {self._shown}: {detail}", forbidden=forbidden)
