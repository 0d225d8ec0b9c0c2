"""The Lambda control plane: functions, versions, aliases, layers, policies, and how functions are invoked.

Owns: everything that the Lambda API stores about functions (store keys `("lambda.…", …)`), their states, the queue of
asynchronous events. Offers: `Control`, one method for each operation of the API, dict to dict.
Never: speaks HTTP, checks signatures or the form of requests (the codec does), runs instances itself (the functions room does).
"""

from martlet.functions.control.control import Control

__all__ = ["Control"]
