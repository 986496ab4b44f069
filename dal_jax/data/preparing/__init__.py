"""Any data set, recorded once: a source's people as array_record files, in parallel, resumable, counted."""
