"""A worker that serves a lane."""
