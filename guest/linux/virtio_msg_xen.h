/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The front end of docs/virtio-msg-xen.md: what its source files share.
 *
 *	bus.c		xenbus: discovery, connecting, leaving, suspend
 *	msg.c		the message page and its event channel
 *	vdev.c		the virtio device: configuration operations, virtqueues
 *	dma.c		DMA addresses are grants
 *	bounce.c	pages of their own for what the device writes
 *	grants.c	a stock of grant references
 *	pool.c		pages that stay granted, for small buffers
 *
 * The back end is not trusted: it may be another guest's neighbour. What it
 * can write is read once and checked, and is on pages with nothing else; what is
 * granted to it is never freed before the grant has ended.
 */
#ifndef VIRTIO_MSG_XEN_H
#define VIRTIO_MSG_XEN_H

#include <linux/completion.h>
#include <linux/dma-mapping.h>
#include <linux/mutex.h>
#include <linux/notifier.h>
#include <linux/spinlock.h>
#include <linux/virtio.h>
#include <linux/workqueue.h>
#include <linux/xarray.h>
#include <xen/grant_table.h>
#include <xen/xenbus.h>

#include "wire.h"

/* The longest DMA mapping is 2^VMSG_MAX_ORDER pages, not all of them whole. */
#define VMSG_MAX_ORDER		8
#define VMSG_MAX_MAPPING	((PAGE_SIZE << VMSG_MAX_ORDER) - PAGE_SIZE)

/* Grants are by 4 KiB, and this driver is for kernels whose pages are too. */
#define VMSG_GRANT_PAGE		BIT(VMSG_GRANT_SHIFT)
static_assert(PAGE_SIZE == VMSG_GRANT_PAGE);
static_assert(sizeof(dma_addr_t) == 8);

#define VMSG_MAX_POOL_PAGES	256U

/* grants.c: free runs of 2^order consecutive references, VMSG_STOCK references of each order. */
#define VMSG_STOCK		256
static_assert(VMSG_STOCK >> VMSG_MAX_ORDER);

struct vmsg_grants {
	spinlock_t	lock;		/* protects what follows */
	unsigned int	count[VMSG_MAX_ORDER + 1];
	grant_ref_t	first[2 * VMSG_STOCK];
};

/* pool.c: see there. */
struct vmsg_pool {
	spinlock_t	lock;		/* protects used and hint */
	unsigned int	pages;		/* 0: there is no pool */
	unsigned int	declared;	/* of those, the back end maps so many */
	unsigned int	hint;
	void		*base;
	grant_ref_t	ref;
	u64		*used;
	void		**origin;
};

/* msg.c: the message page of section 2. */
struct vmsg_channel {
	struct vmsg_page	*page;	/* NULL: not set up */
	grant_ref_t		gref;
	evtchn_port_t		port;
	int			irq;

	struct mutex		mutex;	/* one request at a time */
	u16			token;
	u32			driver_prod;
	u32			driver_cons;	/* the interrupt handler's */

	/*
	 * Protects what the interrupt handler shares with others: the request
	 * that waits for its answer, and the device that wants to hear of
	 * changes.
	 */
	spinlock_t		lock;
	bool			open;	/* the back end may be asked */
	bool			waiting;
	bool			answered;
	union vmsg_message	answer;	/* the request until answered */
	struct completion	done;
	struct virtio_device	*listener;
	bool			unheard;
};

/* bus.c: how far the front end has come. */
enum vmsg_phase {
	VMSG_IDLE,		/* nothing is shared with the back end */
	VMSG_OFFERED,		/* page and port are offered (Initialised) */
	VMSG_CONNECTED,		/* messages flow */
};

struct vmsg_dev {
	struct xenbus_device	*xdev;
	domid_t			backend;

	struct mutex		lock;	/* one step of the lifecycle at a time */
	enum vmsg_phase		phase;
	bool			suspended;
	bool			leaving; /* the work item has to unregister vdev */
	unsigned long		patience;	/* when to give up waiting, in jiffies */
	struct delayed_work	work;
	struct delayed_work	drain;

	struct vmsg_channel	channel;
	struct vmsg_grants	grants;
	struct vmsg_pool	pool;
	struct xarray		bounced;	/* see bounce.c */
	struct virtio_device	*vdev;	/* NULL: there is none */
	bool			frozen;	/* vdev is; protected by its device lock */
	struct notifier_block	binding;

	u64			dma_mask;
	struct device_dma_parameters dma_parms;
};

/* bus.c */
void vmsg_channel_failed(struct vmsg_dev *d);

/* msg.c */
void vmsg_channel_init(struct vmsg_dev *d);
int vmsg_channel_setup(struct vmsg_dev *d);
void vmsg_channel_open(struct vmsg_dev *d);
void vmsg_channel_close(struct vmsg_dev *d);
void vmsg_channel_destroy(struct vmsg_dev *d);
bool vmsg_channel_is_open(struct vmsg_dev *d);
void vmsg_channel_fail(struct vmsg_dev *d, const char *why);
void vmsg_channel_listen(struct vmsg_dev *d, struct virtio_device *vdev);
int vmsg_request(struct vmsg_dev *d, u8 id, const void *request, size_t request_len,
		 void *response, size_t response_len);

/* vdev.c */
struct virtio_device *vmsg_vdev_create(struct vmsg_dev *d);
void vmsg_vdev_break(struct virtio_device *vdev);
int vmsg_vdev_restore(struct virtio_device *vdev);
int vmsg_vdev_check(struct vmsg_dev *d, struct virtio_device *vdev);
void vmsg_vdev_config_event(struct virtio_device *vdev, u32 status);

/* dma.c */
void vmsg_dma_attach(struct vmsg_dev *d);
void vmsg_dma_claim(struct vmsg_dev *d);
void vmsg_dma_detach(struct vmsg_dev *d);
int vmsg_dma_protect(struct vmsg_dev *d, dma_addr_t addr, void *memory, unsigned int pages);
void vmsg_ungrant(struct vmsg_dev *d, dma_addr_t addr, unsigned int pages);

/* bounce.c */
bool vmsg_bounce_needed(unsigned long offset, size_t size);
int vmsg_bounce_map(struct vmsg_dev *d, void *buffer, size_t size, enum dma_data_direction dir,
		    dma_addr_t *addr);
void vmsg_bounce_sync(struct vmsg_dev *d, dma_addr_t addr, size_t size, bool for_cpu);
void vmsg_bounce_unmap(struct vmsg_dev *d, dma_addr_t addr, size_t size, bool copy_back);

/* grants.c */
void vmsg_grants_init(struct vmsg_grants *grants);
void vmsg_grants_drain(struct vmsg_grants *grants);
int vmsg_grants_take(struct vmsg_grants *grants, unsigned int order, grant_ref_t *first);
void vmsg_grants_give(struct vmsg_grants *grants, unsigned int order, grant_ref_t first);
void vmsg_grant_pages(domid_t domid, grant_ref_t first, unsigned long pfn, unsigned int pages,
		      bool readonly);
bool vmsg_end_grants(grant_ref_t first, unsigned int pages);

/* pool.c */
void vmsg_pool_setup(struct vmsg_dev *d, unsigned int max_pages);
void vmsg_pool_drop(struct vmsg_dev *d);
void vmsg_pool_destroy(struct vmsg_dev *d);
bool vmsg_pool_map(struct vmsg_dev *d, void *origin, size_t size, enum dma_data_direction dir,
		   dma_addr_t *addr);
bool vmsg_pool_owns(struct vmsg_dev *d, dma_addr_t addr);
void vmsg_pool_sync(struct vmsg_dev *d, dma_addr_t addr, size_t size, bool for_cpu);
void vmsg_pool_unmap(struct vmsg_dev *d, dma_addr_t addr, size_t size, bool copy_back);

static inline dma_addr_t vmsg_grant_to_dma(grant_ref_t ref)
{
	return VMSG_DMA_GRANT | ((dma_addr_t)ref << VMSG_GRANT_SHIFT);
}

static inline grant_ref_t vmsg_dma_to_grant(dma_addr_t addr)
{
	return (addr & ~VMSG_DMA_GRANT) >> VMSG_GRANT_SHIFT;
}

#endif
