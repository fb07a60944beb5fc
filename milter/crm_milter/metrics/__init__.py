"""What is counted, and the pages that show it.

Workers count in memory that all processes share, by additions alone: a worker that is killed loses
nothing but the message it was at. The exporter, a process of its own, reads that memory and serves
/metrics and /healthz. It alone imports prometheus_client, and it cannot hurt mail.
"""
