"""DynamoDB's tables, items and streams: the face of the documents room for applications that speak its protocol.

Owns: tables with their secondary indexes, items, their expiry and their streams; the rules, limits and texts of the service.
Offers: `Tables` (over one store), `DynamoDb` and `DynamoDbStreams`, the services as AWS's clients call them, and
`Tables.streams.records`, a plain read of a stream.
Never: knows a wire, or who may do what beyond asking; shares rows with collections: its own begin with "Y". What it shares is
the change log: a table with a stream writes entries of the same topic, in the database "aws:dynamodb".
"""

from martlet.documents.dynamodb.database import Tables
from martlet.documents.dynamodb.dynamodb import DynamoDb, DynamoDbStreams
from martlet.documents.dynamodb.writing import DATABASE

__all__ = ["DATABASE", "DynamoDb", "DynamoDbStreams", "Tables"]
