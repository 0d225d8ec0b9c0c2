"""Queues: messages that wait until somebody has dealt with them. Amazon SQS's rules, in rows of the store.

Owns: queues, their attributes, tags and policies; messages with their visibility, order, deduplication and receive counts;
dead-letter redrive, message move tasks, receipt handles.
Offers: `Queues` (send, receive, acknowledge, release by name: for triggers and other rooms), `Sqs` (the service's operations,
dict to dict) over it.
Never: says "sent" before the message is durable, or hands out a message before its visibility is; polls; reads a message's
body for any purpose but to hand it out.
"""

from martlet.queues.queues import Queues, Received
from martlet.queues.sqs import Sqs

__all__ = ["Queues", "Received", "Sqs"]
