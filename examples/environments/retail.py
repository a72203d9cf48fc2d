"""A shop's customer service, as in tau-bench: a simulated user, tools on a database, whose end is the score."""

import copy
import json

from verigym.envs.core import Submission, ToolEnv
from verigym.envs.speakers import other_side
from verigym.envs.task import Task
from verigym.envs.tools.spec import ToolError, tool
from verigym.model.chat.messages import Message, ToolCall

ORDERS = {
    "A1": {"user": "mia", "item": "lamp", "status": "pending", "address": "1 Hill Road"},
    "B2": {"user": "noah", "item": "kettle", "status": "delivered", "address": "2 Lake Street"},
    "C3": {"user": "mia", "item": "chair", "status": "pending", "address": "1 Hill Road"},
}
STOP = "###STOP###"
USER = (
    "You are a customer who writes to a shop. {wish} Say one thing at a time, and only what you were asked or want. "
    f"When your wish is granted, or is refused for good, answer with {STOP} alone."
)
WISHES = {
    "cancel-lamp": ("You are mia. Cancel your order of a lamp.", [["cancel", {"order": "A1"}]]),
    "move-chair": ("You are mia. Send your chair to 9 New Way.", [["move", {"order": "C3", "address": "9 New Way"}]]),
    "late-kettle": ("You are noah. Cancel your order of a kettle, whatever they say.", []),
}


class Retail(ToolEnv):
    """The episode passed where the database is what the right calls would have made of it: no more and no less."""

    family = "retail"
    system_prompt = "You serve customers of a shop. Only pending orders may be changed. Find out who is writing first."

    def load(self):
        return [
            Task(id=name, family=self.family, prompt="Hello?", hidden={"wish": wish, "calls": calls})
            for name, (wish, calls) in WISHES.items()
        ]

    def start(self, task):
        self.orders = copy.deepcopy(ORDERS)

    async def prompt(self, task):
        opening = [Message(role="user", content="Welcome to the shop. How can I help you?")]
        return (await self.user(task, opening)).content

    async def user(self, task, heard):
        system = Message(role="system", content=USER.format(wish=task.hidden["wish"]))
        return await self.model("user").say([system, *heard])

    async def reply(self, task, message):
        said = (await self.user(task, other_side(self.transcript))).content
        return Submission(value=self.orders) if STOP in said else said

    @tool
    def orders_of(self, user: str) -> str:
        """Lists a user's orders.

        Args:
            user: the name.
        """
        return json.dumps({name: order for name, order in self.orders.items() if order["user"] == user.lower()})

    @tool
    def cancel(self, order: str) -> str:
        """Cancels a pending order.

        Args:
            order: its number.
        """
        self.pending(order)["status"] = "cancelled"
        return f"{order} is cancelled"

    @tool
    def move(self, order: str, address: str) -> str:
        """Changes the address of a pending order.

        Args:
            order: its number.
            address: the new one.
        """
        self.pending(order)["address"] = address
        return f"{order} goes to {address}"

    def pending(self, order):
        if order not in self.orders:
            raise ToolError(f"there is no order {order!r}")
        if self.orders[order]["status"] != "pending":
            raise ToolError(f"{order} is {self.orders[order]['status']}, and cannot be changed")
        return self.orders[order]

    def score(self, task, submission):
        wanted = copy.deepcopy(ORDERS)
        for name, arguments in task.hidden["calls"]:
            change = {"status": "cancelled"} if name == "cancel" else {"address": arguments["address"]}
            wanted[arguments["order"]] |= change
        return submission == wanted

    def unfinished(self, task):
        return self.orders

    def stand_in(self, name, messages):
        """A user who says the wish, and is content with anything: for gold episodes and demonstrations."""
        if sum(message.role == "assistant" for message in messages):
            return STOP
        return messages[0].content.split(". ")[1] + "."

    def gold(self, task):
        calls = [ToolCall(name=name, arguments=arguments) for name, arguments in task.hidden["calls"]]
        acts = [Message(role="assistant", content="", calls=(call,)) for call in calls]
        return [*acts, Message(role="assistant", content="It is done." if acts else "That cannot be changed any more.")]

    def empty(self, task):
        # In a task whose right end is no change, doing nothing would be right: it does harm instead.
        harm = ToolCall(name="cancel", arguments={"order": "C3"})
        return [Message(role="assistant", content="", calls=(harm,)), Message(role="assistant", content="")]
