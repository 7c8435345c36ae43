/* SPDX-License-Identifier: GPL-2.0-only */
/* Where the kernels from 6.1 on differ. Nothing else tests the version. */
#ifndef VIRTIO_MSG_XEN_COMPAT_H
#define VIRTIO_MSG_XEN_COMPAT_H

#include <linux/version.h>
#include <linux/virtio_config.h>
#include <xen/xenbus.h>

#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 1, 0)
#error "virtio_msg_xen needs Linux 6.1 or newer"
#endif

/* 6.11 gathered what find_vqs() takes for each virtqueue in a structure. */
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 11, 0)
#define VMSG_FIND_VQS_TAKES_ARRAYS
struct virtqueue_info {
	const char *name;
	vq_callback_t *callback;
	bool ctx;
};
#endif

/*
 * 6.2 made xenbus_driver.remove return nothing, and so did an update of 6.1
 * later: its type tells, not the version. VMSG_REMOVE(f) is f, or f_int.
 */
#define VMSG_REMOVE(f)							\
	_Generic(((struct xenbus_driver *)NULL)->remove,		\
		 void (*)(struct xenbus_device *): f,			\
		 int (*)(struct xenbus_device *): f##_int)

/* 6.4 */
#ifndef VIRTIO_F_NOTIFICATION_DATA
#define VIRTIO_F_NOTIFICATION_DATA	38
#endif

#endif
