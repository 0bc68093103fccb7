package hookline

import (
	"os"
	"unsafe"
)

func address(block []byte) uint32 { return uint32(uintptr(unsafe.Pointer(unsafe.SliceData(block)))) }

// The call fails, and the host drops this instance.
func end(any) { os.Exit(2) }
