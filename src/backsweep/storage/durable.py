class DurableFolder: pass
