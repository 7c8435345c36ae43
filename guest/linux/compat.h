/* SPDX-License-Identifier: GPL-2.0-only */
/* Where the kernels from 6.1 on differ. Nothing else tests the version. */
#ifndef VIRTIO_MSG_XEN_COMPAT_H
#define VIRTIO_MSG_XEN_COMPAT_H

#include <linux/version.h>
#include <linux/virtio_config.h>

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

/* 6.4 */
#ifndef VIRTIO_F_NOTIFICATION_DATA
#define VIRTIO_F_NOTIFICATION_DATA	38
#endif

#endif
