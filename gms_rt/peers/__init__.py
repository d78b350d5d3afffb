"""Other runtimes beside the engines, each in a process of its own: the client here, the server there."""
