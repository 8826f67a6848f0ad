"""Examples of objectives, for --objective; docs/objectives.md says how to write one."""
