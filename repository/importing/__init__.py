"""Models out of other programs' stores: one module finds those of each, `placing` makes them ours by link or copy."""
