"""Run on two ranks: many alarms, each while the other rank computes and this one waits."""

import os

from backsweep.comm import connect

comm = connect()
for k in range(300):
    comm._alarm = 0
    if comm.rank == 0:
        comm.raise_alarm(k + 1)
        comm.while_waiting = comm.alarm
        comm.receive(1)
    else:
        while not comm.alarm():
            pass
        assert comm.alarm() == k + 1
        comm.send("heard", 0)
if comm.is_root:
    print("all heard, through", os.environ["MPIR_CVAR_CH4_NETMOD"])
