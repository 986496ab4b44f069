"""The one error a person who runs a binary can cause and mend."""


class InputError(ValueError):
    """A file, a flag or a folder is not what it must be.

    The message is ONE line that names the file (or flag), the entry and the value, for instance
    `people.json: annotation 17: dp_I[3] is 25, a part is 1 to 24`. `runtime.cli.run` prints it and exits with code 2.
    """
