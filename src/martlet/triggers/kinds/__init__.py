"""Trigger kinds: each says which log entries cause an event, and what that event looks like. Pure; no store, no clock."""
