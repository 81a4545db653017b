"""The project's own tests: `python manage.py test`. Tasks run where they are sent; no server is needed."""

from __future__ import annotations

from unittest import mock

from django.test import TestCase, override_settings

from .models import Order
from .tasks import OutOfStockError, report, ship


@override_settings(
    CELERY_TASK_ALWAYS_EAGER=True, CELERY_TASK_STORE_EAGER_RESULT=False, CELERY_SURREALDB_TRACK_SENT=False
)
class EagerTests(TestCase):
    """With `task_always_eager`."""

    def test_a_task_runs_where_it_is_sent(self) -> None:
        """The return value is there at once."""
        Order.objects.create(product="book", state="shipped", task_id="1")
        self.assertEqual(report.delay().get(), {"shipped": 1})

    def test_an_order_is_shipped_when_it_is_committed(self) -> None:
        """Before the commit nothing is sent; after it, the order is shipped."""
        with self.captureOnCommitCallbacks() as callbacks:
            answer = self.client.post("/", {"product": "book", "quantity": 2})
        self.assertEqual(answer.status_code, 302)
        self.assertEqual(Order.objects.get().state, "new")
        self.assertEqual(len(callbacks), 2)
        with mock.patch("celery.app.task.Task.update_state"):
            for callback in callbacks:
                callback()
        self.assertEqual(Order.objects.get().state, "shipped")

    def test_an_order_that_is_rolled_back_sends_nothing(self) -> None:
        """What fails within the transaction leaves no task behind."""
        with (
            self.captureOnCommitCallbacks() as callbacks,
            mock.patch("orders.views.confirm.delay_on_commit", side_effect=ValueError),
            self.assertRaises(ValueError),
        ):
            self.client.post("/", {"product": "book", "quantity": 2})
        self.assertEqual((Order.objects.count(), callbacks), (0, []))

    def test_an_error_is_the_callers(self) -> None:
        """A task that fails raises where its result is asked for."""
        order = Order.objects.create(product="book", quantity=1000, task_id="1")
        with self.assertRaisesRegex(OutOfStockError, "no 1000 of book"):
            ship.delay(order.pk).get()
