"""End users of apps: who signed up, how they prove who they are, and the tokens that say so.

Owns: pools of users that apps declare: accounts, password hashes, one-time codes, second factors, groups, sessions, the keys
that sign their tokens, and messages that wait for the app's sender.
Offers: `Users`: what people do by themselves (sign up, sign in, refresh …), what the app's owner does (groups, disable,
delete), and `identify`, which judges an access token.
Never: says or shows by its timing whether an address has an account, keeps a password, a code or a refresh token that could be
used as it lies there, sends mail itself, or trusts what a token's header names.
"""

from martlet.users.caller import Caller
from martlet.users.pools import Pool
from martlet.users.users import Tokens, Users

__all__ = ["Caller", "Pool", "Tokens", "Users"]
