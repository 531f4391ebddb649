"""Who else describes a motion than the rules, and how their sentences are held against what the rules measured."""
