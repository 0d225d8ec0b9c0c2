"""Secrets and parameters: what code needs to know and others must not.

Owns: secrets with their versions and stages, parameters with their history and labels, and the keys that they are encrypted by.
Offers: `Secrets` and `Ssm`, the services "secretsmanager" and "ssm" as AWS's clients call them, and `Vault`.
Never: writes a value unencrypted, puts one into an error, a log or a `repr`, or imports the cipher before the first value.
"""

from martlet.secrets.secretsmanager import Secrets
from martlet.secrets.ssm import Ssm
from martlet.secrets.vault import Vault, is_in_use, key_source

__all__ = ["Secrets", "Ssm", "Vault", "is_in_use", "key_source"]
