"""Follow the records of tasks as they change: one LIVE query, shared by any number of followers."""

from __future__ import annotations

import threading
from collections.abc import Callable

from .push import Change, LiveQuery, Push, RecordFilter, Subscription


class Follower:
    """A follower. Made by :meth:`Feed.follow`; ended by :meth:`close`.

    Args:
        feed: The feed.
        wanted: The records of interest.
        on_change: Called with each change of one of them.
        on_gap: Called when changes may have been missed: read what is there.
    """

    def __init__(
        self, feed: Feed, wanted: RecordFilter, on_change: Callable[[Change], None], on_gap: Callable[[], None]
    ) -> None:
        self.wanted = wanted
        self.on_change = on_change
        self.on_gap = on_gap
        self._feed = feed

    def close(self) -> None:
        """Stop following."""
        self._feed.leave(self)


class Feed:
    """Changes of a table's records, for followers.

    The server notifies of what any follower's filter accepts; each follower hears of what its own accepts.

    Args:
        push: Carries the LIVE query.
        table: The table's full name.
    """

    def __init__(self, push: Push, table: str) -> None:
        self._push = push
        self._table = table
        #: Guards the followers; never held during a round trip or a call of a follower's.
        self._lock = threading.Lock()
        self._followers: tuple[Follower, ...] = ()
        self._subscription: Subscription | None = None

    @property
    def live(self) -> bool:
        """Whether changes are notified now. Where they are not, a follower looks by itself now and then."""
        subscription = self._subscription
        return subscription is not None and subscription.standing is not None

    def follow(
        self,
        on_change: Callable[[Change], None],
        *,
        wanted: RecordFilter | None = None,
        on_gap: Callable[[], None] = lambda: None,
    ) -> Follower:
        """Follow changes from now on.

        Args:
            on_change: Called with each change, by the thread that reads: it must not block or query. A change may
                come twice.
            wanted: The records of interest; None for all.
            on_gap: Called, as `on_change` is, once changes are notified and whenever some may have been missed.

        Returns:
            The follower, to be closed.
        """
        follower = Follower(self, wanted or RecordFilter(), on_change, on_gap)
        with self._lock:
            self._followers = (*self._followers, follower)
        if self._ask():
            follower.on_gap()
        return follower

    def leave(self, follower: Follower) -> None:
        """Stop following.

        Args:
            follower: The follower that leaves; nothing happens if it has left before.
        """
        with self._lock:
            self._followers = tuple(other for other in self._followers if other is not follower)

    def detach(self) -> None:
        """In a forked child: the followers are the parent's."""
        self._lock = threading.Lock()
        self._followers = ()

    def _query(self) -> LiveQuery:
        return LiveQuery(self._table, tuple(sorted({each.wanted for each in self._followers}, key=repr)))

    def _ask(self) -> bool:
        """Have the server notify of all that followers want; whether it does so now."""
        query = self._query()
        with self._lock:
            subscription = self._subscription = self._subscription or self._push.subscribe(
                query, on_change=self._changed, on_standing=self._stands, is_needed=lambda: bool(self._followers)
            )
        standing = subscription.standing
        if standing is not None and set(query.filters) <= set(standing.filters):
            return True
        return subscription.replace(query)

    def _changed(self, change: Change) -> None:
        for follower in self._followers:
            if follower.wanted.accepts(change.record):
                follower.on_change(change)

    def _stands(self, query: LiveQuery) -> None:
        for follower in self._followers:
            follower.on_gap()
