"""Around the algorithm: where a run's data come from, where its state goes, how it is judged and shown."""
