// SPDX-License-Identifier: GPL-2.0-only
/*
 * Pages of their own for what the device writes.
 *
 * A grant opens a page as a whole. Of the pages that a buffer covers only in
 * part, the rest may be anything of the kernel's: virtio_blk's status bytes lie
 * among its requests, virtio_net's buffers among the descriptions of packets.
 * So a page made for the purpose is granted in place of each of those, and what
 * the device wrote is copied from it. Pages that a buffer covers are granted
 * themselves.
 *
 * A page in place of another is in d->bounced, by its grant reference; its
 * private field is the address that its first byte stands for.
 */
#include <linux/gfp.h>
#include <linux/mm.h>
#include <linux/string.h>
#include <linux/xarray.h>
#include <xen/page.h>

#include "virtio_msg_xen.h"

/* Which bytes of its page @i a mapping has. */
struct part {
	unsigned int	start;
	unsigned int	len;
};

static struct part part_of(unsigned long offset, size_t size, unsigned int i)
{
	size_t start = max_t(size_t, offset, i * PAGE_SIZE);
	size_t end = min_t(size_t, offset + size, (i + 1) * PAGE_SIZE);

	return (struct part){ start - i * PAGE_SIZE, end - start };
}

/* Whether a buffer shares one of its pages. The address of a mapping tells this as well. */
bool vmsg_bounce_needed(unsigned long offset, size_t size)
{
	return offset_in_page(offset | size);
}

static struct page *take_page(struct vmsg_dev *d, grant_ref_t ref)
{
	struct page *page;
	unsigned long flags;

	xa_lock_irqsave(&d->bounced, flags);
	page = __xa_erase(&d->bounced, ref);
	xa_unlock_irqrestore(&d->bounced, flags);
	return page;
}

/* Has a page stand for the one at @origin. Zeroes: the buffer may never have been written. */
static int put_page_for(struct vmsg_dev *d, grant_ref_t ref, void *origin)
{
	struct page *page = alloc_page(GFP_ATOMIC | __GFP_ZERO | __GFP_NOWARN);
	unsigned long flags;
	int err;

	if (!page)
		return -ENOMEM;
	set_page_private(page, (unsigned long)origin);
	xa_lock_irqsave(&d->bounced, flags);
	err = xa_err(__xa_store(&d->bounced, ref, page, GFP_ATOMIC | __GFP_NOWARN));
	xa_unlock_irqrestore(&d->bounced, flags);
	if (err)
		__free_page(page);
	return err;
}

static void copy_part(struct page *page, struct part part, bool for_cpu)
{
	void *origin = (void *)page_private(page) + part.start;
	void *granted = page_address(page) + part.start;

	if (for_cpu)
		memcpy(origin, granted, part.len);
	else
		memcpy(granted, origin, part.len);
}

static void discard(struct page *page)
{
	if (!page)
		return;
	set_page_private(page, 0);
	/* The grant may still be in use: then the kernel has the page, too. */
	__free_page(page);
}

int vmsg_bounce_map(struct vmsg_dev *d, void *buffer, size_t size, enum dma_data_direction dir,
		    dma_addr_t *addr)
{
	/* What is shorter than a page gets one, even if it lies in two. */
	unsigned long offset = size < PAGE_SIZE ? 0 : offset_in_page(buffer);
	unsigned int i, pages = PFN_UP(offset + size), order = order_base_2(pages);
	void *start = buffer - offset;
	grant_ref_t first;
	int err;

	err = vmsg_grants_take(&d->grants, order, &first);
	if (unlikely(err))
		return err;
	for (i = 0; i < pages; i++) {
		if (part_of(offset, size, i).len == PAGE_SIZE)
			continue;
		err = put_page_for(d, first + i, start + i * PAGE_SIZE);
		if (unlikely(err))
			goto undo;
	}

	*addr = vmsg_grant_to_dma(first) + offset;
	if (dir != DMA_FROM_DEVICE)
		vmsg_bounce_sync(d, *addr, size, false);
	for (i = 0; i < pages; i++) {
		struct page *page = xa_load(&d->bounced, first + i);

		vmsg_grant_pages(d->backend, first + i,
				 page ? page_to_pfn(page) : virt_to_pfn(start + i * PAGE_SIZE),
				 1, false);
	}
	return 0;

undo:
	while (i--)
		discard(take_page(d, first + i));
	vmsg_grants_give(&d->grants, order, first);
	return err;
}

/* @addr may lie inside of a mapped buffer here, and the buffer in no page of these. */
void vmsg_bounce_sync(struct vmsg_dev *d, dma_addr_t addr, size_t size, bool for_cpu)
{
	unsigned long offset = offset_in_page(addr);
	unsigned int i, pages = PFN_UP(offset + size);

	for (i = 0; i < pages; i++) {
		struct page *page = xa_load(&d->bounced, vmsg_dma_to_grant(addr) + i);

		if (page)
			copy_part(page, part_of(offset, size, i), for_cpu);
	}
}

void vmsg_bounce_unmap(struct vmsg_dev *d, dma_addr_t addr, size_t size, bool copy_back)
{
	unsigned long offset = offset_in_page(addr);
	unsigned int last = PFN_UP(offset + size) - 1;
	grant_ref_t first = vmsg_dma_to_grant(addr);
	/* Before the references are anybody else's. */
	struct page *head = take_page(d, first);
	struct page *tail = last ? take_page(d, first + last) : NULL;

	/* Before the copy: it is not to change any more. */
	vmsg_ungrant(d, addr, last + 1);
	if (copy_back && head)
		copy_part(head, part_of(offset, size, 0), true);
	if (copy_back && tail)
		copy_part(tail, part_of(offset, size, last), true);
	discard(head);
	discard(tail);
}
