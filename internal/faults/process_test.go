package faults

// childVariable names the part that this program plays as a child process.
const childVariable = "GRACEDB_FAULTS_CHILD"

func runChild(string) int { return 0 }
