"""What is installed in a cluster, as `kumactl install control-plane` prints it. Pure: nothing here asks a cluster."""
