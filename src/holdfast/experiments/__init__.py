"""The jobs behind the commands, as library calls: certify, recertify, reproduce."""
