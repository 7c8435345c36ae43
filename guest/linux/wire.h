/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What front end and back end share: the message page and the messages in it.
 *
 * Section numbers refer to docs/virtio-msg-xen.md. Layouts without one are
 * those of the OASIS draft "Virtio over Messages" (RFC v3). All fields are
 * little-endian; every structure is naturally aligned, without padding.
 */
#ifndef VIRTIO_MSG_XEN_WIRE_H
#define VIRTIO_MSG_XEN_WIRE_H

#include <linux/bits.h>
#include <linux/build_bug.h>
#include <linux/types.h>

#define VMSG_REVISION		1

/* Section 2: one page, two rings of eight slots. */
#define VMSG_SLOTS		8
#define VMSG_MAX_SIZE		128
#define VMSG_MIN_SIZE		8

struct vmsg_header {
	u8	type;
	u8	msg_id;
	__le16	dev_num;
	__le16	token;
	__le16	msg_size;
};

#define VMSG_TYPE_RESPONSE	0x01
#define VMSG_TYPE_BUS		0x02

#define VMSG_GET_DEVICE_INFO		0x02
#define VMSG_GET_DEVICE_FEATURES	0x03
#define VMSG_SET_DRIVER_FEATURES	0x04
#define VMSG_GET_CONFIG			0x05
#define VMSG_SET_CONFIG			0x06
#define VMSG_SET_DEVICE_STATUS		0x08
#define VMSG_GET_VQUEUE			0x09
#define VMSG_SET_VQUEUE			0x0a
#define VMSG_RESET_VQUEUE		0x0b
#define VMSG_EVENT_CONFIG		0x40
/* Sections 4 and 6. */
#define VMSG_XEN_SET_VQUEUE_EVENT	0x80
#define VMSG_XEN_SET_POOL		0x81

#define VMSG_MAX_PAYLOAD	(VMSG_MAX_SIZE - sizeof(struct vmsg_header))

struct vmsg_device_info {
	__le32	device_id;
	__le32	vendor_id;
	__le32	num_feature_bits;
	__le32	config_size;
	__le32	max_virtqueues;
	__le16	admin_vq_start;
	__le16	admin_vq_count;
};

/* Two blocks are the 64 feature bits that Linux knows. */
#define VMSG_FEATURE_BLOCKS	2

struct vmsg_features {
	__le32	block_index;
	__le32	num_blocks;
	__le32	features[VMSG_FEATURE_BLOCKS];
};

struct vmsg_get_config {
	__le32	offset;
	__le32	length;
};

/* Both the response to GET_CONFIG and SET_CONFIG in both directions; @length bytes follow. */
struct vmsg_config {
	__le32	generation;
	__le32	offset;
	__le32	length;
};

#define VMSG_CONFIG_CHUNK	(VMSG_MAX_PAYLOAD - sizeof(struct vmsg_config))

struct vmsg_event_config {
	__le32	device_status;
	__le32	generation;
	__le32	offset;
	__le32	length;
};

struct vmsg_vqueue_info {
	__le32	index;
	__le32	max_size;
	__le32	cur_size;
	__le32	reserved;
	__le64	desc_addr;
	__le64	driver_addr;
	__le64	device_addr;
};

struct vmsg_set_vqueue {
	__le32	index;
	__le32	reserved0;
	__le32	size;
	__le32	reserved1;
	__le64	desc_addr;
	__le64	driver_addr;
	__le64	device_addr;
};

struct vmsg_set_vqueue_event {
	__le32	index;
	__le32	port;
};

struct vmsg_vqueue_event_status {
	__le32	index;
	__le32	status;
};

struct vmsg_set_pool {
	__le64	address;
	__le32	pages;
	__le32	reserved;
};

struct vmsg_pool_status {
	__le32	status;
	__le32	reserved;
};

union vmsg_message {
	struct {
		struct vmsg_header header;
		u8 payload[VMSG_MAX_PAYLOAD];
	};
	u8	bytes[VMSG_MAX_SIZE];
};

struct vmsg_page {
	/* Written by the front end. */
	__le32	driver_prod;
	__le32	driver_cons;
	u8	reserved0[0x38];
	/* Written by the back end. */
	__le32	device_prod;
	__le32	device_cons;
	u8	reserved1[0x3b8];
	union vmsg_message driver_ring[VMSG_SLOTS];
	union vmsg_message device_ring[VMSG_SLOTS];
	u8	reserved2[0x400];
};

static_assert(sizeof(struct vmsg_header) == VMSG_MIN_SIZE);
static_assert(sizeof(struct vmsg_device_info) == 24);
static_assert(sizeof(struct vmsg_set_vqueue) == 40);
static_assert(sizeof(struct vmsg_vqueue_info) == 40);
static_assert(sizeof(union vmsg_message) == VMSG_MAX_SIZE);
static_assert(offsetof(struct vmsg_page, device_prod) == 0x40);
static_assert(offsetof(struct vmsg_page, driver_ring) == 0x400);
static_assert(offsetof(struct vmsg_page, device_ring) == 0x800);
static_assert(sizeof(struct vmsg_page) == 4096);

/* Section 3: a DMA address is bit 63, a grant reference, and an offset. */
#define VMSG_DMA_GRANT		BIT_ULL(63)
#define VMSG_GRANT_SHIFT	12

#endif
