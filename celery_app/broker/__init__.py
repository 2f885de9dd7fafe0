"""The broker: kombu's Redis transport with another way in and out, so that no job is lost, stuck or overtaken."""
