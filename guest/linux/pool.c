// SPDX-License-Identifier: GPL-2.0-only
/*
 * The granted pool (section 6): pages that stay granted, and mapped by the
 * back end, as long as the connection lasts. A back end may map only some of
 * them, or none: to it the others are grants like any.
 *
 * Request headers, status bytes and indirect tables are a few bytes each, but
 * as grants of their own each would cost the back end a hypercall to fetch, and
 * would show it the rest of the page. They are copied through the pool instead.
 *
 * A page is cut into 64 chunks of 64 bytes, the bits of one word; a buffer is a
 * run of chunks in one page. What the pool needs to know about a buffer is
 * kept outside of the granted pages. When the pool is full, a buffer is mapped
 * like a larger one.
 */
#include <linux/bitops.h>
#include <linux/gfp.h>
#include <linux/module.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <xen/page.h>

#include "virtio_msg_xen.h"

#define CHUNK_SHIFT	6
#define CHUNK_SIZE	BIT(CHUNK_SHIFT)
#define CHUNKS_PER_PAGE	(VMSG_GRANT_PAGE >> CHUNK_SHIFT)

static unsigned int pool_pages = 32;
module_param(pool_pages, uint, 0444);
MODULE_PARM_DESC(pool_pages, "Pages of granted pool for each device, 0 for none (default 32)");

static unsigned int bounce_max = 1024;
module_param(bounce_max, uint, 0644);
MODULE_PARM_DESC(bounce_max,
		 "Longest buffer that is copied through the pool, in bytes, up to 4096 (default 1024)");

/* The lowest i for which bits i to i + n - 1 of @used are all clear, or -1. */
static int find_run(u64 used, unsigned int n)
{
	u64 starts = ~used;
	unsigned int len = 1;

	/* Bit i of starts: the run of len chunks from i on is free. */
	while (len < n) {
		unsigned int step = min(len, n - len);

		starts &= starts >> step;
		len += step;
	}
	return starts ? __ffs64(starts) : -1;
}

static u64 run_mask(unsigned int chunk, unsigned int n)
{
	return GENMASK_ULL(chunk + n - 1, chunk);
}

/* Takes @n chunks in a row; their number in the pool, or -1. */
static int take_chunks(struct vmsg_pool *pool, unsigned int n)
{
	unsigned int i, page;
	unsigned long flags;
	int chunk = -1;

	spin_lock_irqsave(&pool->lock, flags);
	page = pool->hint;
	for (i = 0; i < pool->pages; i++) {
		chunk = find_run(pool->used[page], n);
		if (chunk >= 0) {
			pool->used[page] |= run_mask(chunk, n);
			pool->hint = page;
			chunk += page * CHUNKS_PER_PAGE;
			break;
		}
		if (++page == pool->pages)
			page = 0;
	}
	spin_unlock_irqrestore(&pool->lock, flags);
	return chunk;
}

static void give_chunks(struct vmsg_pool *pool, unsigned int chunk, unsigned int n)
{
	unsigned long flags;

	spin_lock_irqsave(&pool->lock, flags);
	pool->used[chunk / CHUNKS_PER_PAGE] &= ~run_mask(chunk % CHUNKS_PER_PAGE, n);
	spin_unlock_irqrestore(&pool->lock, flags);
}

static unsigned int chunk_of(struct vmsg_pool *pool, dma_addr_t addr)
{
	return (addr - vmsg_grant_to_dma(pool->ref)) >> CHUNK_SHIFT;
}

/*
 * Copies a small buffer into the pool. The smallest that the device is to write
 * are copied as well: drivers set a status byte beforehand, to find it unchanged
 * if the device leaves it out. Longer ones are zeroed, because the back end is
 * not to read what was in them.
 */
bool vmsg_pool_map(struct vmsg_dev *d, void *origin, size_t size, enum dma_data_direction dir,
		   dma_addr_t *addr)
{
	struct vmsg_pool *pool = &d->pool;
	void *shared;
	int chunk;

	if (!pool->pages || !size || size > min_t(size_t, READ_ONCE(bounce_max), VMSG_GRANT_PAGE))
		return false;

	chunk = take_chunks(pool, DIV_ROUND_UP(size, CHUNK_SIZE));
	if (chunk < 0)
		return false;

	pool->origin[chunk] = origin;
	shared = pool->base + ((size_t)chunk << CHUNK_SHIFT);
	if (dir == DMA_FROM_DEVICE && size > CHUNK_SIZE)
		memset(shared, 0, size);
	else
		memcpy(shared, origin, size);
	*addr = vmsg_grant_to_dma(pool->ref) + ((dma_addr_t)chunk << CHUNK_SHIFT);
	return true;
}

bool vmsg_pool_owns(struct vmsg_dev *d, dma_addr_t addr)
{
	struct vmsg_pool *pool = &d->pool;
	dma_addr_t base = vmsg_grant_to_dma(pool->ref);

	return addr >= base && addr - base < (dma_addr_t)pool->pages << VMSG_GRANT_SHIFT;
}

/* @addr may lie inside of a mapped buffer here, not only at its start. */
void vmsg_pool_sync(struct vmsg_dev *d, dma_addr_t addr, size_t size, bool for_cpu)
{
	struct vmsg_pool *pool = &d->pool;
	unsigned int chunk = chunk_of(pool, addr);
	size_t offset = addr & (CHUNK_SIZE - 1);
	void *shared, *origin;

	/* Only the first chunk of a buffer has an origin. */
	while (!pool->origin[chunk] && chunk % CHUNKS_PER_PAGE) {
		chunk--;
		offset += CHUNK_SIZE;
	}
	origin = pool->origin[chunk];
	if (WARN_ON_ONCE(!origin))
		return;

	origin += offset;
	shared = pool->base + ((size_t)chunk << CHUNK_SHIFT) + offset;
	if (for_cpu)
		memcpy(origin, shared, size);
	else
		memcpy(shared, origin, size);
}

void vmsg_pool_unmap(struct vmsg_dev *d, dma_addr_t addr, size_t size, bool copy_back)
{
	struct vmsg_pool *pool = &d->pool;
	unsigned int chunk = chunk_of(pool, addr);
	void *origin = pool->origin[chunk];

	/* An address that was not handed out would free somebody else's chunks. */
	if (WARN_ON_ONCE(!origin || addr & (CHUNK_SIZE - 1)))
		return;

	if (copy_back)
		memcpy(origin, pool->base + ((size_t)chunk << CHUNK_SHIFT), size);
	pool->origin[chunk] = NULL;
	give_chunks(pool, chunk, DIV_ROUND_UP(size, CHUNK_SIZE));
}

static int declare_pool(struct vmsg_dev *d, unsigned int pages)
{
	struct vmsg_set_pool request = {
		.address = cpu_to_le64(pages ? vmsg_grant_to_dma(d->pool.ref) : 0),
		.pages = cpu_to_le32(pages),
	};
	struct vmsg_pool_status response;
	int err;

	err = vmsg_request(d, VMSG_XEN_SET_POOL, &request, sizeof(request),
			   &response, sizeof(response));
	if (err)
		return err;
	return response.status ? -EIO : 0;
}

/*
 * Sets the pool up, of which the back end maps at most @max_pages. A device works
 * without, so failure only costs speed.
 */
void vmsg_pool_setup(struct vmsg_dev *d, unsigned int max_pages)
{
	struct vmsg_pool *pool = &d->pool;
	unsigned int pages = min(pool_pages, VMSG_MAX_POOL_PAGES);

	spin_lock_init(&pool->lock);
	if (!pages)
		return;

	pool->used = kcalloc(pages, sizeof(*pool->used), GFP_KERNEL);
	pool->origin = kvcalloc(pages * CHUNKS_PER_PAGE, sizeof(*pool->origin), GFP_KERNEL);
	pool->base = alloc_pages_exact(pages * PAGE_SIZE, GFP_KERNEL | __GFP_ZERO | __GFP_NOWARN);
	if (!pool->used || !pool->origin || !pool->base)
		goto free;
	if (gnttab_alloc_grant_reference_seq(pages, &pool->ref))
		goto free;

	vmsg_grant_pages(d->backend, pool->ref, virt_to_pfn(pool->base), pages, false);
	pool->hint = 0;
	pool->pages = pages;
	pool->declared = min(pages, max_pages);
	if (pool->declared && declare_pool(d, pool->declared)) {
		dev_dbg(&d->xdev->dev, "the back end refused a pool of %u pages\n", pool->declared);
		pool->declared = 0;
	}
	return;

free:
	if (pool->base)
		free_pages_exact(pool->base, pages * PAGE_SIZE);
	kvfree(pool->origin);
	kfree(pool->used);
}

/* Asks the back end to unmap the pool. No virtqueue may be in use. */
void vmsg_pool_drop(struct vmsg_dev *d)
{
	if (d->pool.declared)
		declare_pool(d, 0);
}

/* Ends the pool. No buffer may be in it. */
void vmsg_pool_destroy(struct vmsg_dev *d)
{
	struct vmsg_pool *pool = &d->pool;

	if (!pool->pages)
		return;

	/* Pages that the back end still maps are kept from reuse by the grant. */
	if (vmsg_end_grants(pool->ref, pool->pages))
		gnttab_free_grant_reference_seq(pool->ref, pool->pages);
	free_pages_exact(pool->base, pool->pages * PAGE_SIZE);
	kvfree(pool->origin);
	kfree(pool->used);
	pool->pages = 0;
	pool->declared = 0;
}
