"""Measures tenantbase side by side with its peers, in one run on one machine. See README.md.

run         the command line: selects rounds and work, prints the results
peers/      the services compared, and how each is started
dialect     the form of a request for each of them, and its correct answer
work        the workloads and their data
throughput  maximum throughput: a closed loop, by wrk
client      latency: an open loop, at a fixed rate
memory      the memory of a server process
growth      a million entries beside a thousand
mixed_load  gets and sets beside everything else that a tenant does
size        up to ten million entries
connections idle connections, watchers, and connections that ask once a second
against     two commits side by side, with a verdict
report      from the results to the table, the plot and the section of README.md
"""
