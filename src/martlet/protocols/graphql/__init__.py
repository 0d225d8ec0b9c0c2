"""GraphQL over the document database.

Owns: what a GraphQL schema means in collections, indexes and references; the durable schema of a database; requests over HTTP
and Server-Sent Events.
Offers: `endpoints.GraphqlEndpoints`, the operations of the listener; `importing.put_schema` for deployments.
Never: reads or writes past `documents`, decides who may what (it asks `authorize` for each collection it touches), or loads
GraphQL's library before a request needs it. Design: DESIGN.md.
"""
