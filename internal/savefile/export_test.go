package savefile

// What tests outside the package need, which use packages that import this one.
var SaveBy = save

const MaxID = maxID

type Linker = linker
