class DurableFolder:
    pass
