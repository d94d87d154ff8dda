"""What tests stand on: real SSH servers, network namespaces, a watch for leaks."""
