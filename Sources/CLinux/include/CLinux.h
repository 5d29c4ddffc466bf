// SPDX-License-Identifier: Apache-2.0
// What Swift cannot see of libc and the kernel: variadic calls, macros, errno. No opinions here.
// Every call that fails returns the negated errno. One header an area.
#ifndef ROOTLINK_CLINUX_H
#define ROOTLINK_CLINUX_H
#include "clinux_backend.h"
#include "clinux_engine.h"
#include "clinux_file.h"
#include "clinux_guard.h"
#include "clinux_init.h"
#include "clinux_interface.h"
#include "clinux_keeper.h"
#include "clinux_nbd.h"
#include "clinux_operation.h"
#include "clinux_process.h"
#include "clinux_server.h"
#include "clinux_shutdown.h"
#include "clinux_socket.h"
#include "clinux_uring.h"
#endif
